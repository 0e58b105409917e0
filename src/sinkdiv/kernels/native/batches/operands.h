// Right-hand sides of products.
#pragma once

#include "batches/batch.h"

namespace sinkdiv {

// V (B, m, k) packed for a product: narrow operands tile by tile like columns, wide operands with
// padded rows.
template <class T>
class PackedOperand {
  public:
    static constexpr int64_t NARROW = 12;

    PackedOperand(Address v, int64_t batch, int64_t m, int64_t k, int64_t width, int64_t padded)
        : k_(k),
          stride_(k <= NARROW ? 0 : rounded_up(k, column_unit<T>())),
          size_(padded * (stride_ ? stride_ : k)),
          data_(batch * size_) {
        const T* from = entries<const T>(v);
        std::fill(data_.data(), data_.data() + batch * size_, T(0));
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t j = 0; j < m; ++j)
                for (int64_t l = 0; l < k; ++l) {
                    const int64_t at =
                        stride_ ? j * stride_ + l : (j / width * k + l) * width + j % width;
                    data_.data()[b * size_ + at] = from[(b * m + j) * k + l];
                }
    }
    Operand<T> operator[](int64_t b) const { return {data_.data() + b * size_, k_, stride_}; }

  private:
    int64_t k_, stride_, size_;
    Buffer<T> data_;
};

}  // namespace sinkdiv
