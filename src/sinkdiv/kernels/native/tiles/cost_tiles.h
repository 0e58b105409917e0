// What a pass is told of one problem: where its costs come from, and vectors that belong to its
// rows and columns.
#pragma once

#include <cstdint>

namespace sinkdiv {

// How the cost of a pair is formed.
enum class Form {
    squared_differences,  // sum of (x - y)^2: cancels nothing
    squared_product,      // |x|^2 - 2xy + |y|^2: half of the work in high dimension
    distance,             // the root of the first
    matrix,               // read from memory
};

// The costs of one problem, tile by tile: what they are formed from. Columns are packed tile by
// tile, coordinate by coordinate, and padded with zeros.
template <class T>
struct CostTiles {
    const T* x;  // rows, (n, d); for a matrix its rows, with d entries from one row to the next
    const T* y;  // columns, (tiles, d, width)
    const T* x_squares;  // |x_i|^2, (n), for squared_product
    const T* y_squares;  // |y_j|^2, (tiles, width)
    int64_t n, m, d, width;
    Form form;

    __attribute__((always_inline)) int64_t count() const { return (m + width - 1) / width; }
};

// Scores are z_ij = h_j - scale * C_ij (+ u_i), the exponents of the plan in base 2. Padded columns
// hold LOWEST.
template <class T>
struct Scores {
    const T* u;  // (n), or null
    const T* h;  // (tiles, width)
    T scale;     // 1 / (eps ln 2)
};

constexpr float LOWEST = -1e30f;  // stands for log 0: infinities could give NaN

// A right-hand side V (m, k) of a product.
template <class T>
struct Operand {
    // Narrow: (tiles, k, width). Wide: (m rounded up to tiles, padded k), or null if all are 0.
    const T* values;
    int64_t k, stride;  // stride: padded k of a wide operand, 0 for a narrow operand
};

// What the plan's entries are multiplied by: rows_i + columns_j, and a term that depends on the
// reduction.
template <class T>
struct Factors {
    const T* rows;     // (n)
    const T* columns;  // (tiles, width)
};

// Which points move. If those of one side are at rest, a tangent takes a third less products.
enum class Moving { both, rows, columns };

// How the points move. The cost's tangent is its derivative along this motion.
template <class T>
struct Motion {
    const T* x;           // (n, d)
    const T* y;           // packed as the columns are
    const T* x_products;  // x_i * dx_i, (n), for squared_product
    const T* y_products;  // y_j * dy_j, (tiles, width)
    Moving moving;
};

// Rows that one task reduces: enough to use a tile of columns often while it is in the cache.
constexpr int64_t BLOCK = 48;

// The rows [begin, end) of one task, at most BLOCK of them, and memory that belongs to its thread.
template <class T>
struct Rows {
    int64_t begin, end;
    T* scratch;  // `scratch_size` entries
};

// Two numbers for each pair of the largest group and one for each column; two states for each row.
template <class T>
__attribute__((always_inline)) inline int64_t scratch_size(int64_t width) {
    return (2 * 6 + 1) * width + 2 * BLOCK;
}

}  // namespace sinkdiv
