// What the passes are told: one problem's points, and the table of passes that each instruction set provides.
#pragma once

#include <cstdint>

namespace sinkdiv {

// How the cost of a pair is formed.
enum class Form {
    squared_differences,  // sum of (x - y)^2: cancels nothing
    squared_product,      // |x|^2 - 2xy + |y|^2: half of the work in high dimension, for points near the origin
    distance,             // the root of the first
    matrix,               // read from memory
};

// The pairs of one problem. Columns are packed tile by tile, coordinate by coordinate, and padded with zeros.
template <class T>
struct Pairs {
    const T* x;          // rows, (n, d); for a matrix its rows, with d entries from one to the next
    const T* y;          // columns, (tiles, d, width)
    const T* x_squares;  // |x_i|^2, (n), for squared_product
    const T* y_squares;  // |y_j|^2, (tiles, width)
    int64_t n, m, d, width;
    Form form;

    int64_t tiles() const { return (m + width - 1) / width; }
};

// Scores are z_ij = h_j - scale * C_ij (+ u_i), the exponents of the plan in base 2. Padded columns hold LOWEST.
template <class T>
struct Scores {
    const T* u;  // (n), or null
    const T* h;  // (tiles, width)
    T scale;     // 1 / (eps ln 2)
};

constexpr float LOWEST = -1e30f;  // stands for log 0, so that no infinity meets another

// A right-hand side V (m, k) of a plan product.
template <class T>
struct Operand {
    const T* values;  // narrow: (tiles, k, width); wide: (m rounded up to tiles, padded k), or null if all are 0
    int64_t k, stride;  // stride: padded k of a wide operand, 0 for a narrow one
};

// What is multiplied: the plan itself, or its product with the derivative of the cost in the rows' points.
enum class Product { plan, gradient_of_squares, gradient_of_distance };

// What the plan's entries are multiplied by besides: rows_i + columns_j + log P_ij, or + slope times the cost's tangent.
template <class T>
struct Factors {
    const T* rows;     // (n)
    const T* columns;  // (tiles, width)
    T slope;
};

// Points that are at rest save a third of the products behind a tangent.
enum class Moving { both, rows, columns };

// How the points move. The cost's tangent is its derivative as they do.
template <class T>
struct Motion {
    const T* x;           // (n, d)
    const T* y;           // packed as the columns are
    const T* x_products;  // x_i * dx_i, (n), for squared_product
    const T* y_products;  // y_j * dy_j, (tiles, width)
    Moving moving;
};

// A whole problem, small enough for one thread. Weights a (n) and b (m); potentials f, raw_f (n) and g, raw_g (m).
template <class T>
struct SmallProblem {
    Pairs<T> pairs;
    const T *a, *b;
    double eps, rho_f, rho_g;  // the strengths are infinite for hard marginals
    double spread;             // bound of max C - min C
    bool symmetric;
    double tol;
    int64_t max_passes;
    const T* start;              // the potential g of a similar problem, or null
    T *f, *g, *raw_f, *raw_g;    // results, as in solvers/problem.py
    T *error, *value;            // one number each: the marginal error, the dual value
    int64_t* passes;
    float* history;  // the error at each of the first `checks` checks, NaN above the target eps
    int64_t checks;
    T* gradient;     // sum_j P_ij dC_ij/dx_i (n, d), or null; then the columns' points are wanted as an operand:
    Operand<T> operand;
};

// Asked at each step of a long computation: must it end?
struct Cancelled {
    bool (*asked)(void*);
    void* state;
    bool operator()() const { return asked(state); }
};

constexpr int64_t SMALL_SIDE = 4096;  // most rows or columns of a small problem

// Passes over rows [begin, end) of one problem; `scratch` has `scratch_size` entries of T and belongs to the thread.
template <class T>
struct Passes {
    const char* name;
    int rows, lanes;
    // C_ij
    void (*costs)(const Pairs<T>&, int64_t begin, int64_t end, T* scratch, T* out);
    // -eps ln 2 * log2 sum_j 2^z_ij
    void (*softmin)(const Pairs<T>&, const Scores<T>&, int64_t begin, int64_t end, T* scratch, double* sums, T* out);
    // min_j C_ij - g_j for packed g, which is -infinity in padded columns
    void (*ctransform)(const Pairs<T>&, const T* g, int64_t begin, int64_t end, T* scratch, T* out);
    // sum_j P_ij v_jk; or sum_j P_ij dC_ij/dx_ik, where V holds the columns' points and `points` the rows' (n, k)
    void (*product)(const Pairs<T>&, const Scores<T>&, const Operand<T>&, Product, const T* points, int64_t begin,
                    int64_t end, T* scratch, double* sums, T* out);
    // sum_j P_ij C_ij v_jk
    void (*cost_product)(const Pairs<T>&, const Scores<T>&, const Operand<T>&, int64_t begin, int64_t end, T* scratch,
                         double* sums, T* out);
    // sum_j P_ij, and added to `columns`: sum_i P_ij
    void (*marginals)(const Pairs<T>&, const Scores<T>&, int64_t begin, int64_t end, T* scratch, double* columns,
                      T* out);
    // the same of P_ij (s_i + t_j + log P_ij)
    void (*weighted_marginals)(const Pairs<T>&, const Scores<T>&, const Factors<T>&, int64_t begin, int64_t end,
                               T* scratch, double* columns, T* out);
    // and of P_ij times the cost's tangent
    void (*tangent_marginals)(const Pairs<T>&, const Scores<T>&, const Motion<T>&, int64_t begin, int64_t end,
                              T* scratch, double* columns, T* out);
    // sum_j P_ij (s_i + t_j + log P_ij) dC_ij/dx_ik; V and `points` as above
    void (*weighted_gradient)(const Pairs<T>&, const Scores<T>&, const Operand<T>&, const Factors<T>&, const T* points,
                              int64_t begin, int64_t end, T* scratch, double* sums, T* out);
    // the derivative of sum_j P_ij dC_ij/dx_ik along a motion; besides V an operand of the columns' velocities
    void (*gradient_tangent)(const Pairs<T>&, const Scores<T>&, const Operand<T>&, const Operand<T>&, const Factors<T>&,
                             const Motion<T>&, const T* points, int64_t begin, int64_t end, T* scratch, double* sums,
                             T* out);
    // sum_j P_ij C_ij
    void (*plan_cost)(const Pairs<T>&, const Scores<T>&, int64_t begin, int64_t end, T* scratch, double* out);
    // P_ij
    void (*plan_matrix)(const Pairs<T>&, const Scores<T>&, int64_t begin, int64_t end, T* scratch, T* out);
    // P_ij (s_i + t_j + log P_ij)
    void (*weighted_plan)(const Pairs<T>&, const Scores<T>&, const Factors<T>&, int64_t begin, int64_t end, T* scratch,
                          T* out);
    // sum_j b_j s (C_ij + eps log s) for the density s = 2^z_ij + p_i q_j
    void (*corrected_primal)(const Pairs<T>&, const Scores<T>&, const T* b, const T* p, const T* q, int64_t begin,
                             int64_t end, T* scratch, double* out);
    int64_t (*small_memory)(int64_t n, int64_t m, int64_t d, int64_t width);  // bytes
    void (*solve_small)(const SmallProblem<T>&, char* memory, Cancelled);
};

// Rows that one task reduces: enough to use a tile of columns often while it is in the cache.
constexpr int64_t BLOCK = 48;

template <class T>
int64_t scratch_size(int64_t width) {
    return (2 * 6 + 1) * width + 2 * BLOCK;  // two numbers a pair of the largest group, one a column; two states a row
}

namespace avx512 { template <class T> const Passes<T>& passes(); }
namespace avx2 { template <class T> const Passes<T>& passes(); }
namespace portable { template <class T> const Passes<T>& passes(); }

}  // namespace sinkdiv
