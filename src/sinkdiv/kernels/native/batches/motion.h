// Directions in which the points of a batch move.
#pragma once

#include "batches/batch.h"

namespace sinkdiv {

// How the points of a batch move, along dx (B, n, d) and dy (B, m, d).
template <class T>
class PackedMotion {
  public:
    PackedMotion(const PackedBatch<T>& packed, const Batch& batch, Address dx, Address dy)
        : batch_(batch),
          padded_(packed.padded()),
          dx_(entries<const T>(dx)),
          dy_(batch.batch * padded_ * batch.d),
          x_products_(batch.batch * batch.n),
          y_products_(batch.batch * padded_),
          moving_(batch.batch, Moving::both) {
        const T* moves = entries<const T>(dy);
        for (int64_t b = 0; b < batch.batch; ++b) {
            const T* own = moves + b * batch.m * batch.d;
            if (rests(own, batch.m * batch.d))
                moving_[b] = Moving::rows;
            else if (rests(dx_ + b * batch.n * batch.d, batch.n * batch.d))
                moving_[b] = Moving::columns;
            for (int64_t from = 0; from < padded_; from += packed.width())
                pack_tile(own + from * batch.d, std::min(packed.width(), batch.m - from), batch.d,
                          packed.width(), dy_.data() + (b * padded_ + from) * batch.d);
            if (packed.tiles(b).form != Form::squared_product) continue;
            multiply(packed.x(b), dx_ + b * batch.n * batch.d, batch.n,
                     x_products_.data() + b * batch.n);
            multiply(packed.y(b), own, batch.m, y_products_.data() + b * padded_);
            std::fill(y_products_.data() + b * padded_ + batch.m,
                      y_products_.data() + (b + 1) * padded_, T(0));
        }
    }

    Motion<T> operator[](int64_t b) const {
        return {dx_ + b * batch_.n * batch_.d, dy_.data() + b * padded_ * batch_.d,
                x_products_.data() + b * batch_.n, y_products_.data() + b * padded_, moving_[b]};
    }

  private:
    static bool rests(const T* moves, int64_t count) {
        return std::all_of(moves, moves + count, [](T value) { return value == 0; });
    }

    void multiply(const T* points, const T* moves, int64_t count, T* to) const {
        for (int64_t i = 0; i < count; ++i, points += batch_.d, moves += batch_.d) {
            double total = 0;
            for (int64_t k = 0; k < batch_.d; ++k) total += double(points[k]) * moves[k];
            to[i] = T(total);
        }
    }

    Batch batch_;
    int64_t padded_;
    const T* dx_;
    Buffer<T> dy_, x_products_, y_products_;
    std::vector<Moving> moving_;
};

}  // namespace sinkdiv
