// A batch of problems as Python describes it, and the same with its columns packed for the passes.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "machine/instruction_sets.h"
#include "machine/memory.h"
#include "machine/parallel.h"
#include "tiles/cost_tiles.h"

namespace sinkdiv {

SINKDIV_IN_EACH_SET(template <class T> int64_t column_unit();)

// Columns that a pass takes at once; the width of a tile is a multiple of it.
template <class T>
int64_t column_unit() {
    return SINKDIV_IN_CHOSEN_SET(column_unit<T>());
}

// The address of a tensor: contiguous memory that the caller keeps alive.
using Address = uintptr_t;

template <class T>
T* entries(Address address, int64_t offset = 0) {
    return reinterpret_cast<T*>(address) + offset;
}

// A batch of problems as Python describes it: addresses and sizes.
struct Batch {
    Address x, y;  // points (B, n, d) and (B, m, d); or costs (B, n, m) and null, with d = m
    int64_t batch, n, m, d;
    bool euclidean;
    int threads;

    bool matrix() const { return y == 0; }
    int64_t packed_dimension() const { return matrix() ? 0 : d; }
};

// Columns of a tile: at most 2 kB of a row, a tile that stays in the second cache, and little
// padding.
template <class T>
int64_t tile_width(int64_t m, int64_t d, int64_t unit) {
    const int64_t in_cache = (512 * 1024) / (int64_t(sizeof(T)) * std::max<int64_t>(d, 1));
    const int64_t most =
        std::clamp<int64_t>(in_cache / unit * unit, unit, 2048 / int64_t(sizeof(T)));
    const int64_t tiles = (m + most - 1) / most;
    return rounded_up((m + tiles - 1) / tiles, unit);
}

// Points (count, d) of one tile, coordinate by coordinate and padded with zeros.
template <class T>
void pack_tile(const T* source, int64_t count, int64_t d, int64_t width, T* target) {
    constexpr int64_t SIDE = 16;  // blocks whose reads and writes both stay in a few cache lines
    for (int64_t j0 = 0; j0 < count; j0 += SIDE)
        for (int64_t k0 = 0; k0 < d; k0 += SIDE)
            for (int64_t k = k0; k < std::min(k0 + SIDE, d); ++k)
                for (int64_t j = j0; j < std::min(j0 + SIDE, count); ++j)
                    target[k * width + j] = source[j * d + k];
    for (int64_t k = 0; k < d; ++k)
        std::fill(target + k * width + count, target + (k + 1) * width, T(0));
}

// Up to this dimension distances are sums of differences, which cost as much there as a product.
constexpr int64_t LOW_DIMENSION = 8;
// Above it a product is taken if its rounding changes exponents by less than this.
constexpr double PRODUCT_ERROR = 2.5e-4;

// Problems with their columns packed. Widths are those of the whole batch, so that buffers can be
// shared.
template <class T>
class PackedBatch {
  public:
    PackedBatch(const Batch& batch, const T* scales)
        : batch_(batch),
          unit_(column_unit<T>()),
          width_(tile_width<T>(batch.m, batch.packed_dimension(), unit_)),
          padded_(rounded_up(batch.m, width_)),
          y_(batch.batch * padded_ * batch.packed_dimension()),
          x_squares_(batch.batch * batch.n),
          y_squares_(batch.batch * padded_),
          forms_(batch.batch, batch.matrix()    ? Form::matrix
                              : batch.euclidean ? Form::distance
                                                : Form::squared_differences) {
        if (batch.matrix()) return;
        const int64_t tiles = padded_ / width_;
        parallel_for(batch.batch * tiles, threads(batch.batch * padded_ * batch.d / 8), nullptr,
                     [&](int64_t task, int, Cancellation&) { pack(task / tiles, task % tiles); });
        if (batch.d > LOW_DIMENSION && !batch.euclidean)
            for (int64_t b = 0; b < batch.batch; ++b) choose_form(b, scales[b]);
    }

    int64_t width() const { return width_; }
    int64_t padded() const { return padded_; }

    CostTiles<T> tiles(int64_t b) const {
        return {x(b),
                y_.data() + b * padded_ * batch_.packed_dimension(),
                x_squares_.data() + b * batch_.n,
                y_squares_.data() + b * padded_,
                batch_.n,
                batch_.m,
                batch_.d,
                width_,
                forms_[b]};
    }

    const T* x(int64_t b) const { return entries<const T>(batch_.x, b * batch_.n * batch_.d); }
    const T* y(int64_t b) const { return entries<const T>(batch_.y, b * batch_.m * batch_.d); }

    // As many threads as the work of so many multiplications is worth.
    int threads(int64_t work) const {
        constexpr int64_t WORTH_A_THREAD = 1 << 19;  // some 50 microseconds
        return int(std::clamp<int64_t>(work / WORTH_A_THREAD, 1, batch_.threads));
    }

    int workers() const {
        return threads(batch_.batch * batch_.n * padded_ * (batch_.packed_dimension() + 12) / 8);
    }

  private:
    void pack(int64_t b, int64_t tile) {
        const int64_t from = tile * width_;
        pack_tile(y(b) + from * batch_.d, std::min(width_, batch_.m - from), batch_.d, width_,
                  y_.data() + (b * padded_ + from) * batch_.d);
    }

    void choose_form(int64_t b, T scale) {
        T* x_squares = x_squares_.data() + b * batch_.n;
        T* y_squares = y_squares_.data() + b * padded_;
        const double most_x = squares(x(b), batch_.n, x_squares),
                     most_y = squares(y(b), batch_.m, y_squares);
        std::fill(y_squares + batch_.m, y_squares + padded_, T(0));
        const double error =
            std::numeric_limits<T>::epsilon() * 2 * std::sqrt(most_x * most_y) * double(scale);
        if (error < PRODUCT_ERROR) forms_[b] = Form::squared_product;
    }

    // |x_i|^2 into `to`, and the largest.
    double squares(const T* points, int64_t count, T* to) const {
        double most = 0;
        for (int64_t i = 0; i < count; ++i) {
            double total = 0;
            for (int64_t k = 0; k < batch_.d; ++k)
                total += double(points[i * batch_.d + k]) * points[i * batch_.d + k];
            to[i] = T(total);
            most = std::max(most, total);
        }
        return most;
    }

    Batch batch_;
    int64_t unit_, width_, padded_;
    Buffer<T> y_, x_squares_, y_squares_;
    std::vector<Form> forms_;
};

}  // namespace sinkdiv
