// The Python module: packs columns, shares the rows among threads, and calls the passes of the best instruction set.
//
// Tensors come as addresses of contiguous memory; __init__.py is the only caller and answers for them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "pairs.h"
#include "parallel.h"

namespace nb = nanobind;

namespace sinkdiv {
namespace {

std::vector<std::string> supported_instruction_sets() {
    std::vector<std::string> names;
#if defined(SINKDIV_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) names.push_back("avx512");
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) names.push_back("avx2");
#endif
    names.push_back("portable");
    return names;
}

std::string& chosen() {
    static std::string name = supported_instruction_sets().front();
    return name;
}

template <class T>
const Passes<T>& passes() {
#if defined(SINKDIV_X86)
    if (chosen() == "avx512") return avx512::passes<T>();
    if (chosen() == "avx2") return avx2::passes<T>();
#endif
    return portable::passes<T>();
}

bool interrupted() {
    nb::gil_scoped_acquire held;
    return PyErr_CheckSignals() != 0;
}

// Memory of earlier calls of this thread. A fresh large allocation costs a page fault every 4 kB, which for a small
// problem is as much as its passes.
class Pool {
  public:
    struct Block {
        std::unique_ptr<char[]> memory;
        int64_t size = 0;
    };

    static Block take(int64_t size) {
        auto& blocks = mine().blocks_;
        for (auto block = blocks.begin(); block != blocks.end(); ++block)
            if (block->size >= size && block->size <= 4 * size + SMALL) {
                Block found = std::move(*block);
                blocks.erase(block);
                mine().held_ -= found.size;
                return found;
            }
        return {std::unique_ptr<char[]>(new char[size]), size};
    }

    static void give_back(Block block) {
        Pool& pool = mine();
        if (pool.held_ + block.size > MOST) return;
        pool.held_ += block.size;
        pool.blocks_.push_back(std::move(block));
    }

  private:
    static constexpr int64_t SMALL = 1 << 14, MOST = 1 << 24;  // 16 kB, 16 MB
    static Pool& mine() {
        thread_local Pool pool;
        return pool;
    }
    std::vector<Block> blocks_;
    int64_t held_ = 0;
};

// Memory aligned to cache lines, not initialised.
template <class T>
class Buffer {
  public:
    explicit Buffer(int64_t size) : block_(Pool::take(size * int64_t(sizeof(T)) + 64)) {
        const auto address = reinterpret_cast<uintptr_t>(block_.memory.get());
        data_ = reinterpret_cast<T*>((address + 63) / 64 * 64);
    }
    ~Buffer() { Pool::give_back(std::move(block_)); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    T* data() const { return data_; }

  private:
    Pool::Block block_;
    T* data_;
};

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Columns of a tile: at most 2 kB of a row, a tile that stays in the second cache, and little padding.
template <class T>
int64_t tile_width(int64_t m, int64_t d, int64_t unit) {
    const int64_t in_cache = (512 * 1024) / (int64_t(sizeof(T)) * std::max<int64_t>(d, 1));
    const int64_t most = std::clamp<int64_t>(in_cache / unit * unit, unit, 2048 / int64_t(sizeof(T)));
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
                for (int64_t j = j0; j < std::min(j0 + SIDE, count); ++j) target[k * width + j] = source[j * d + k];
    for (int64_t k = 0; k < d; ++k) std::fill(target + k * width + count, target + (k + 1) * width, T(0));
}

// A batch of problems as Python describes it: addresses and sizes.
struct Batch {
    uintptr_t x, y;  // points (B, n, d) and (B, m, d); or costs (B, n, m) and null, with d = m
    int64_t batch, n, m, d;
    bool euclidean;
    int threads;

    bool matrix() const { return y == 0; }
    int64_t packed_dimension() const { return matrix() ? 0 : d; }
};

//: Up to this dimension distances are sums of differences, which cost as much there as a product.
constexpr int64_t LOW_DIMENSION = 8;
//: Above it a product is taken if its rounding changes exponents by less than this.
constexpr double PRODUCT_ERROR = 2.5e-4;

// Problems with their columns packed. Widths are those of the whole batch, so that buffers can be shared.
template <class T>
class Packed {
  public:
    Packed(const Batch& batch, const T* scales)
        : batch_(batch),
          unit_(passes<T>().lanes),
          width_(tile_width<T>(batch.m, batch.packed_dimension(), unit_)),
          padded_(rounded_up(batch.m, width_)),
          y_(batch.batch * padded_ * batch.packed_dimension()),
          x_squares_(batch.batch * batch.n),
          y_squares_(batch.batch * padded_),
          forms_(batch.batch, batch.matrix()      ? Form::matrix
                              : batch.euclidean ? Form::distance
                                                : Form::squared_differences) {
        if (batch.matrix()) return;
        const int64_t tiles = padded_ / width_;
        parallel_for(batch.batch * tiles, threads(batch.batch * padded_ * batch.d / 8), nullptr,
                     [&](int64_t task, int, Watch&) { pack(task / tiles, task % tiles); });
        if (batch.d > LOW_DIMENSION && !batch.euclidean)
            for (int64_t b = 0; b < batch.batch; ++b) choose_form(b, scales[b]);
    }

    int64_t width() const { return width_; }
    int64_t padded() const { return padded_; }

    Pairs<T> pairs(int64_t b) const {
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

    const T* x(int64_t b) const { return reinterpret_cast<const T*>(batch_.x) + b * batch_.n * batch_.d; }
    const T* y(int64_t b) const { return reinterpret_cast<const T*>(batch_.y) + b * batch_.m * batch_.d; }

    // As many threads as the work of so many multiplications is worth.
    int threads(int64_t work) const {
        constexpr int64_t WORTH_A_THREAD = 1 << 19;  // some 50 microseconds
        return int(std::clamp<int64_t>(work / WORTH_A_THREAD, 1, batch_.threads));
    }

    // Runs pass(b, begin, end, thread) over all blocks of rows. False if interrupted.
    template <class Pass>
    bool over_rows(Pass pass) const {
        const int64_t blocks = (batch_.n + BLOCK - 1) / BLOCK;
        return parallel_for(batch_.batch * blocks, workers(), interrupted, [&](int64_t task, int thread, Watch&) {
            const int64_t b = task / blocks, begin = task % blocks * BLOCK;
            const int64_t end = std::min(begin + BLOCK, batch_.n);
            if (begin < end) pass(b, begin, end, thread);
        });
    }

    int workers() const { return threads(batch_.batch * batch_.n * padded_ * (batch_.packed_dimension() + 12) / 8); }

  private:
    void pack(int64_t b, int64_t tile) {
        const int64_t from = tile * width_;
        pack_tile(y(b) + from * batch_.d, std::min(width_, batch_.m - from), batch_.d, width_,
                  y_.data() + (b * padded_ + from) * batch_.d);
    }

    void choose_form(int64_t b, T scale) {
        T* x_squares = x_squares_.data() + b * batch_.n;
        T* y_squares = y_squares_.data() + b * padded_;
        const double most_x = squares(x(b), batch_.n, x_squares), most_y = squares(y(b), batch_.m, y_squares);
        std::fill(y_squares + batch_.m, y_squares + padded_, T(0));
        const double error = std::numeric_limits<T>::epsilon() * 2 * std::sqrt(most_x * most_y) * double(scale);
        if (error < PRODUCT_ERROR) forms_[b] = Form::squared_product;
    }

    // |x_i|^2 into `to`, and the largest.
    double squares(const T* points, int64_t count, T* to) const {
        double most = 0;
        for (int64_t i = 0; i < count; ++i) {
            double total = 0;
            for (int64_t k = 0; k < batch_.d; ++k) total += double(points[i * batch_.d + k]) * points[i * batch_.d + k];
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

constexpr double LOG2E = 1.4426950408889634074;

// Exponents (B, n) or (B, m) in natural logarithms, brought to base 2 and padded.
template <class T>
class Exponents {
  public:
    Exponents(uintptr_t source, int64_t batch, int64_t count, int64_t padded) : padded_(padded), data_(batch * padded) {
        const T* from = reinterpret_cast<const T*>(source);
        for (int64_t b = 0; b < batch; ++b) {
            T* to = data_.data() + b * padded;
            for (int64_t j = 0; j < count; ++j) to[j] = std::max(T(from[b * count + j] * T(LOG2E)), T(LOWEST));
            std::fill(to + count, to + padded, T(LOWEST));
        }
    }
    const T* operator[](int64_t b) const { return data_.data() + b * padded_; }

  private:
    int64_t padded_;
    Buffer<T> data_;
};

template <class T>
std::vector<T> scales(uintptr_t eps, int64_t batch) {
    std::vector<T> result(batch);
    for (int64_t b = 0; b < batch; ++b) result[b] = T(LOG2E / double(reinterpret_cast<const T*>(eps)[b]));
    return result;
}

// Column vectors (B, m) padded with zeros or what else is given.
template <class T>
class Columns {
  public:
    Columns(uintptr_t source, int64_t batch, int64_t count, int64_t padded, T padding = T(0))
        : padded_(padded), data_(batch * padded) {
        const T* from = reinterpret_cast<const T*>(source);
        for (int64_t b = 0; b < batch; ++b) {
            T* to = data_.data() + b * padded;
            std::copy(from + b * count, from + (b + 1) * count, to);
            std::fill(to + count, to + padded, padding);
        }
    }
    const T* operator[](int64_t b) const { return data_.data() + b * padded_; }

  private:
    int64_t padded_;
    Buffer<T> data_;
};

// One buffer of `size` entries for each thread, apart from the others' cache lines.
template <class T>
class PerThread {
  public:
    PerThread(int threads, int64_t size) : size_(rounded_up(size, 64)), data_(threads * size_) {}
    T* operator[](int thread) const { return data_.data() + thread * size_; }

  private:
    int64_t size_;
    Buffer<T> data_;
};

void finish(bool completed) {
    if (!completed) throw nb::python_error();  // the signal's exception is set
}

template <class T>
void costs(const Batch& batch, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        // At an infinite scale no product is precise enough: the costs may be used at any eps.
        const std::vector<T> scale(batch.batch, std::numeric_limits<T>::infinity());
        const Packed<T> packed(batch, scale.data());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().costs(packed.pairs(b), begin, end, scratch[thread],
                              reinterpret_cast<T*>(out) + b * batch.n * batch.m);
        });
    }
    finish(completed);
}

template <class T>
void softmin(const Batch& batch, uintptr_t h, uintptr_t eps, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> exponents(h, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const PerThread<double> sums(batch.threads, BLOCK);
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().softmin(packed.pairs(b), {nullptr, exponents[b], scale[b]}, begin, end, scratch[thread],
                                sums[thread], reinterpret_cast<T*>(out) + b * batch.n);
        });
    }
    finish(completed);
}

template <class T>
void ctransform(const Batch& batch, uintptr_t g, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const std::vector<T> scale(batch.batch, std::numeric_limits<T>::infinity());  // as for costs
        const Packed<T> packed(batch, scale.data());
        const Columns<T> columns(g, batch.batch, batch.m, packed.padded(), -std::numeric_limits<T>::infinity());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().ctransform(packed.pairs(b), columns[b], begin, end, scratch[thread],
                                   reinterpret_cast<T*>(out) + b * batch.n);
        });
    }
    finish(completed);
}

// V (B, m, k) packed for a plan product: narrow ones tile by tile like columns, wide ones with padded rows.
template <class T>
class PackedOperand {
  public:
    static constexpr int64_t NARROW = 12;

    PackedOperand(uintptr_t v, int64_t batch, int64_t m, int64_t k, int64_t width, int64_t padded)
        : k_(k),
          stride_(k <= NARROW ? 0 : rounded_up(k, passes<T>().lanes)),
          size_(padded * (stride_ ? stride_ : k)),
          data_(batch * size_) {
        const T* from = reinterpret_cast<const T*>(v);
        std::fill(data_.data(), data_.data() + batch * size_, T(0));
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t j = 0; j < m; ++j)
                for (int64_t l = 0; l < k; ++l) {
                    const int64_t at = stride_ ? j * stride_ + l : (j / width * k + l) * width + j % width;
                    data_.data()[b * size_ + at] = from[(b * m + j) * k + l];
                }
    }
    Operand<T> operator[](int64_t b) const { return {data_.data() + b * size_, k_, stride_}; }

  private:
    int64_t k_, stride_, size_;
    Buffer<T> data_;
};

template <class T>
void product(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t v, int64_t k, bool gradient,
             uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PackedOperand<T> operand(v, batch.batch, batch.m, k, packed.width(), packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const PerThread<double> sums(batch.threads, BLOCK * (k + 1));
        const Product what = !gradient         ? Product::plan
                             : batch.euclidean ? Product::gradient_of_distance
                                               : Product::gradient_of_squares;
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().product(packed.pairs(b), {rows[b], columns[b], scale[b]}, operand[b], what, packed.x(b), begin,
                                end, scratch[thread], sums[thread], reinterpret_cast<T*>(out) + b * batch.n * k);
        });
    }
    finish(completed);
}

template <class T>
void cost_product(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t v, int64_t k, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PackedOperand<T> operand(v, batch.batch, batch.m, k, packed.width(), packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const PerThread<double> sums(batch.threads, BLOCK * (k + 1));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().cost_product(packed.pairs(b), {rows[b], columns[b], scale[b]}, operand[b], begin, end,
                                     scratch[thread], sums[thread], reinterpret_cast<T*>(out) + b * batch.n * k);
        });
    }
    finish(completed);
}

// Sums (B, m) over rows that several threads reduce, each into its own part.
template <class T>
class ColumnSums {
  public:
    explicit ColumnSums(const Packed<T>& packed, int64_t batch)
        : padded_(packed.padded()), workers_(packed.workers()), sums_(workers_, batch * padded_) {
        for (int thread = 0; thread < workers_; ++thread)
            std::fill(sums_[thread], sums_[thread] + batch * padded_, 0.0);
    }

    double* of(int64_t b, int thread) const { return sums_[thread] + b * padded_; }

    void write(int64_t batch, int64_t m, uintptr_t out) const {
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t j = 0; j < m; ++j) {
                double total = 0;
                for (int thread = 0; thread < workers_; ++thread) total += of(b, thread)[j];
                reinterpret_cast<T*>(out)[b * m + j] = T(total);
            }
    }

  private:
    int64_t padded_;
    int workers_;
    PerThread<double> sums_;
};

template <class T>
void marginals(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t rows_out,
               uintptr_t columns_out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const ColumnSums<T> sums(packed, batch.batch);
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().marginals(packed.pairs(b), {rows[b], columns[b], scale[b]}, begin, end, scratch[thread],
                                  sums.of(b, thread), reinterpret_cast<T*>(rows_out) + b * batch.n);
        });
        sums.write(batch.batch, batch.m, columns_out);
    }
    finish(completed);
}

// Adds up the rows' contributions (B, n) in double.
template <class T>
void total_rows(const Batch& batch, const Buffer<double>& rows, const T* weights, uintptr_t out) {
    for (int64_t b = 0; b < batch.batch; ++b) {
        double total = 0;
        for (int64_t i = 0; i < batch.n; ++i) {
            const double row = rows.data()[b * batch.n + i];
            total += weights ? double(weights[b * batch.n + i]) * row : row;
        }
        reinterpret_cast<T*>(out)[b] = T(total);
    }
}

template <class T>
void plan_cost(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const Buffer<double> totals(batch.batch * batch.n);
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().plan_cost(packed.pairs(b), {rows[b], columns[b], scale[b]}, begin, end, scratch[thread],
                                  totals.data() + b * batch.n);
        });
        if (completed) total_rows<T>(batch, totals, nullptr, out);
    }
    finish(completed);
}

template <class T>
void plan_matrix(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().plan_matrix(packed.pairs(b), {rows[b], columns[b], scale[b]}, begin, end, scratch[thread],
                                    reinterpret_cast<T*>(out) + b * batch.n * batch.m);
        });
    }
    finish(completed);
}

// How the points of a batch move, along dx (B, n, d) and dy (B, m, d).
template <class T>
class PackedMotion {
  public:
    PackedMotion(const Packed<T>& packed, const Batch& batch, uintptr_t dx, uintptr_t dy)
        : batch_(batch),
          padded_(packed.padded()),
          dx_(reinterpret_cast<const T*>(dx)),
          dy_(batch.batch * padded_ * batch.d),
          x_products_(batch.batch * batch.n),
          y_products_(batch.batch * padded_),
          moving_(batch.batch, Moving::both) {
        const T* moves = reinterpret_cast<const T*>(dy);
        for (int64_t b = 0; b < batch.batch; ++b) {
            const T* own = moves + b * batch.m * batch.d;
            if (rests(own, batch.m * batch.d)) moving_[b] = Moving::rows;
            else if (rests(dx_ + b * batch.n * batch.d, batch.n * batch.d)) moving_[b] = Moving::columns;
            for (int64_t from = 0; from < padded_; from += packed.width())
                pack_tile(own + from * batch.d, std::min(packed.width(), batch.m - from), batch.d, packed.width(),
                          dy_.data() + (b * padded_ + from) * batch.d);
            if (packed.pairs(b).form != Form::squared_product) continue;
            multiply(packed.x(b), dx_ + b * batch.n * batch.d, batch.n, x_products_.data() + b * batch.n);
            multiply(packed.y(b), own, batch.m, y_products_.data() + b * padded_);
            std::fill(y_products_.data() + b * padded_ + batch.m, y_products_.data() + (b + 1) * padded_, T(0));
        }
    }

    Motion<T> operator[](int64_t b) const {
        return {dx_ + b * batch_.n * batch_.d, dy_.data() + b * padded_ * batch_.d, x_products_.data() + b * batch_.n,
                y_products_.data() + b * padded_, moving_[b]};
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

template <class T>
void tangent_marginals(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t dx, uintptr_t dy,
                       uintptr_t rows_out, uintptr_t columns_out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const PackedMotion<T> motion(packed, batch, dx, dy);
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const ColumnSums<T> sums(packed, batch.batch);
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().tangent_marginals(packed.pairs(b), {rows[b], columns[b], scale[b]}, motion[b], begin, end,
                                          scratch[thread], sums.of(b, thread),
                                          reinterpret_cast<T*>(rows_out) + b * batch.n);
        });
        sums.write(batch.batch, batch.m, columns_out);
    }
    finish(completed);
}

template <class T>
void weighted_marginals(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
                        uintptr_t rows_out, uintptr_t columns_out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const Columns<T> factors(t, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const ColumnSums<T> sums(packed, batch.batch);
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().weighted_marginals(packed.pairs(b), {rows[b], columns[b], scale[b]},
                                           {reinterpret_cast<const T*>(s) + b * batch.n, factors[b], T(0)}, begin, end,
                                           scratch[thread], sums.of(b, thread),
                                           reinterpret_cast<T*>(rows_out) + b * batch.n);
        });
        sums.write(batch.batch, batch.m, columns_out);
    }
    finish(completed);
}

template <class T>
void weighted_gradient(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
                       uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const Columns<T> factors(t, batch.batch, batch.m, packed.padded());
        const PackedOperand<T> points(batch.y, batch.batch, batch.m, batch.d, packed.width(), packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const PerThread<double> sums(batch.threads, BLOCK * (batch.d + 1));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().weighted_gradient(
                packed.pairs(b), {rows[b], columns[b], scale[b]}, points[b],
                {reinterpret_cast<const T*>(s) + b * batch.n, factors[b], T(0)}, packed.x(b), begin, end, scratch[thread], sums[thread],
                reinterpret_cast<T*>(out) + b * batch.n * batch.d);
        });
    }
    finish(completed);
}

template <class T>
void weighted_plan(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
                   uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, packed.padded());
        const Columns<T> factors(t, batch.batch, batch.m, packed.padded());
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            passes<T>().weighted_plan(
                packed.pairs(b), {rows[b], columns[b], scale[b]},
                {reinterpret_cast<const T*>(s) + b * batch.n, factors[b], T(0)}, begin, end, scratch[thread], reinterpret_cast<T*>(out) + b * batch.n * batch.m);
        });
    }
    finish(completed);
}

template <class T>
void gradient_tangent(const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
                      uintptr_t dx, uintptr_t dy, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const int64_t width = packed.width(), padded = packed.padded();
        const Exponents<T> rows(u, batch.batch, batch.n, batch.n), columns(h, batch.batch, batch.m, padded);
        const Columns<T> factors(t, batch.batch, batch.m, padded);
        const PackedMotion<T> motion(packed, batch, dx, dy);
        const PackedOperand<T> points(batch.y, batch.batch, batch.m, batch.d, width, padded);
        const PackedOperand<T> moves(dy, batch.batch, batch.m, batch.d, width, padded);
        const PerThread<T> scratch(batch.threads, scratch_size<T>(width));
        const PerThread<double> sums(batch.threads, 2 * BLOCK * (batch.d + 1));
        completed = packed.over_rows([&](int64_t b, int64_t begin, int64_t end, int thread) {
            const T slope = T(-1 / double(reinterpret_cast<const T*>(eps)[b]));
            const bool rest = motion[b].moving == Moving::rows;
            passes<T>().gradient_tangent(packed.pairs(b), {rows[b], columns[b], scale[b]}, points[b],
                                         rest ? Operand<T>{nullptr, batch.d, 1} : moves[b],
                                         {reinterpret_cast<const T*>(s) + b * batch.n, factors[b], slope}, motion[b],
                                         packed.x(b), begin, end, scratch[thread], sums[thread],
                                         reinterpret_cast<T*>(out) + b * batch.n * batch.d);
        });
    }
    finish(completed);
}

template <class T>
void corrected_primal(const Batch& batch, uintptr_t a, uintptr_t b, uintptr_t log_u, uintptr_t log_h, uintptr_t eps,
                      uintptr_t p, uintptr_t q, uintptr_t out) {
    bool completed;
    {
        nb::gil_scoped_release released;
        const auto scale = scales<T>(eps, batch.batch);
        const Packed<T> packed(batch, scale.data());
        const int64_t padded = packed.padded();
        const Exponents<T> rows(log_u, batch.batch, batch.n, batch.n), columns(log_h, batch.batch, batch.m, padded);
        const Columns<T> weights(b, batch.batch, batch.m, padded), across(q, batch.batch, batch.m, padded);
        const PerThread<T> scratch(batch.threads, scratch_size<T>(packed.width()));
        const Buffer<double> totals(batch.batch * batch.n);
        completed = packed.over_rows([&](int64_t i, int64_t begin, int64_t end, int thread) {
            passes<T>().corrected_primal(packed.pairs(i), {rows[i], columns[i], scale[i]}, weights[i],
                                         reinterpret_cast<const T*>(p) + i * batch.n, across[i], begin, end,
                                         scratch[thread], totals.data() + i * batch.n);
        });
        if (completed) total_rows<T>(batch, totals, reinterpret_cast<const T*>(a), out);
    }
    finish(completed);
}

// A batch of small problems, with the addresses of their weights, starts and results. A start may be null, and so may
// `gradient` (B, n, d). The other results of a problem lie together, one problem after the other:
// f (n), raw_f (n), g (m), raw_g (m), error, value, spread; without g and raw_g where the problem is symmetric.
struct SmallBatch {
    Batch pairs;
    const double* eps;  // (B)
    double rho_f, rho_g;
    bool symmetric;
    uintptr_t a, b, start, results, passes, history, gradient;
    int64_t checks;  // that the history of a problem has room for

    int64_t result_size() const { return 2 * pairs.n + (symmetric ? 0 : 2 * pairs.m) + 3; }
};

// A bound of max C - min C that is close enough to begin an annealing: the extent of the box around all points.
template <class T>
double spread(const Batch& batch, int64_t b) {
    const T* x = reinterpret_cast<const T*>(batch.x) + b * batch.n * batch.d;
    if (batch.matrix()) {
        const auto [least, most] = std::minmax_element(x, x + batch.n * batch.m);
        return double(*most) - double(*least);
    }
    const T* y = reinterpret_cast<const T*>(batch.y) + b * batch.m * batch.d;
    const int64_t d = batch.d;
    std::vector<T> box(2 * d);
    T* __restrict least = box.data();
    T* __restrict most = least + d;
    std::copy(x, x + d, least), std::copy(x, x + d, most);
    const auto include = [&](const T* __restrict points, int64_t count) {
        for (int64_t i = 0; i < count; ++i)
            for (int64_t k = 0; k < d; ++k) {
                const T value = points[i * d + k];
                least[k] = value < least[k] ? value : least[k];
                most[k] = value > most[k] ? value : most[k];
            }
    };
    include(x, batch.n), include(y, batch.m);
    double square = 0;
    for (int64_t k = 0; k < batch.d; ++k) square += (double(most[k]) - least[k]) * (double(most[k]) - least[k]);
    return batch.euclidean ? std::sqrt(square) : square;
}

// One batch, ready to be solved.
template <class T>
class SmallBatchSolver {
  public:
    SmallBatchSolver(const SmallBatch& batch, double tol, int64_t max_passes)
        : batch_(batch), tol_(tol), max_passes_(max_passes), scale_(scales(batch)),
          packed_(batch.pairs, scale_.data()) {
        // A narrow operand is packed like columns; a wide one has rows of its own.
        if (batch.gradient && batch.pairs.d > PackedOperand<T>::NARROW)
            wide_ = std::make_unique<PackedOperand<T>>(batch.pairs.y, batch.pairs.batch, batch.pairs.m, batch.pairs.d,
                                                       packed_.width(), packed_.padded());
    }

    int64_t memory() const {
        return passes<T>().small_memory(batch_.pairs.n, batch_.pairs.m, batch_.pairs.d, packed_.width());
    }

    int threads(int64_t work) const { return packed_.threads(work); }

    void solve(int64_t b, char* memory, Watch& watch) const {
        const int64_t n = batch_.pairs.n, m = batch_.pairs.m;
        T* const f = reinterpret_cast<T*>(batch_.results) + b * batch_.result_size();
        T* const raw_f = f + n;
        T* const g = batch_.symmetric ? f : raw_f + n;
        T* const raw_g = batch_.symmetric ? raw_f : g + m;
        T* const numbers = raw_g + m;
        const double extent = spread<T>(batch_.pairs, b);
        numbers[2] = T(extent);
        T* const gradient = reinterpret_cast<T*>(batch_.gradient);
        const SmallProblem<T> problem{packed_.pairs(b), input(batch_.a, b, n), input(batch_.b, b, m), batch_.eps[b],
                                      batch_.rho_f, batch_.rho_g, extent, batch_.symmetric, tol_, max_passes_,
                                      input(batch_.start, b, m), f, g, raw_f, raw_g,
                                      numbers, numbers + 1, reinterpret_cast<int64_t*>(batch_.passes) + b,
                                      reinterpret_cast<float*>(batch_.history) + b * batch_.checks, batch_.checks,
                                      gradient ? gradient + b * n * batch_.pairs.d : nullptr,
                                      wide_ ? (*wide_)[b] : Operand<T>{packed_.pairs(b).y, batch_.pairs.d, 0}};
        passes<T>().solve_small(problem, memory,
                                {[](void* state) { return static_cast<Watch*>(state)->cancelled(); }, &watch});
    }

  private:
    static std::vector<T> scales(const SmallBatch& batch) {
        std::vector<T> result(batch.pairs.batch);
        for (int64_t b = 0; b < batch.pairs.batch; ++b) result[b] = T(LOG2E / batch.eps[b]);
        return result;
    }

    static const T* input(uintptr_t address, int64_t b, int64_t stride) {
        return address ? reinterpret_cast<const T*>(address) + b * stride : nullptr;
    }

    const SmallBatch& batch_;
    double tol_;
    int64_t max_passes_;
    std::vector<T> scale_;
    Packed<T> packed_;
    std::unique_ptr<PackedOperand<T>> wide_;
};

template <class T>
void solve_small(const std::vector<SmallBatch*>& batches, double tol, int64_t max_passes) {
    bool completed;
    {
        nb::gil_scoped_release released;
        std::vector<std::unique_ptr<SmallBatchSolver<T>>> solvers;
        std::vector<std::pair<const SmallBatchSolver<T>*, int64_t>> tasks;
        int64_t memory = 0, work = 0;
        for (const SmallBatch* batch : batches) {
            solvers.push_back(std::make_unique<SmallBatchSolver<T>>(*batch, tol, max_passes));
            memory = std::max(memory, solvers.back()->memory());
            // A solve is some thirty passes, each a quarter of a multiplication with a coordinate or two.
            work += 30 * batch->pairs.batch * batch->pairs.n * batch->pairs.m / 4;
            for (int64_t b = 0; b < batch->pairs.batch; ++b) tasks.emplace_back(solvers.back().get(), b);
        }
        const int threads = std::min<int>(solvers[0]->threads(work), int(tasks.size()));
        const PerThread<char> memories(threads, memory);
        completed = parallel_for(int64_t(tasks.size()), threads, interrupted,
                                 [&](int64_t task, int thread, Watch& watch) {
                                     const auto [solver, b] = tasks[size_t(task)];
                                     solver->solve(b, memories[thread], watch);
                                 });
    }
    finish(completed);
}

}  // namespace
}  // namespace sinkdiv

#define SINKDIV_BOTH(call) (wide ? sinkdiv::call<double> : sinkdiv::call<float>)

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // modules that are never unloaded may keep objects to the end
    using sinkdiv::Batch;
    nb::class_<Batch>(m, "Batch")
        .def("__init__", [](Batch* self, uintptr_t x, uintptr_t y, int64_t batch, int64_t n, int64_t columns, int64_t d,
                            bool euclidean, int threads) {
            new (self) Batch{x, y, batch, n, columns, d, euclidean, std::max(threads, 1)};
        });
    m.def("costs", [](bool wide, const Batch& batch, uintptr_t out) { SINKDIV_BOTH(costs)(batch, out); });
    m.def("softmin", [](bool wide, const Batch& batch, uintptr_t h, uintptr_t eps, uintptr_t out) {
        SINKDIV_BOTH(softmin)(batch, h, eps, out);
    });
    m.def("ctransform", [](bool wide, const Batch& batch, uintptr_t g, uintptr_t out) {
        SINKDIV_BOTH(ctransform)(batch, g, out);
    });
    m.def("product", [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t v, int64_t k,
                        bool gradient, uintptr_t out) {
        SINKDIV_BOTH(product)(batch, u, h, eps, v, k, gradient, out);
    });
    m.def("cost_product", [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t v,
                             int64_t k, uintptr_t out) {
        SINKDIV_BOTH(cost_product)(batch, u, h, eps, v, k, out);
    });
    m.def("marginals", [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t rows,
                          uintptr_t columns) { SINKDIV_BOTH(marginals)(batch, u, h, eps, rows, columns); });
    m.def("weighted_marginals",
          [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
             uintptr_t rows, uintptr_t columns) {
              SINKDIV_BOTH(weighted_marginals)(batch, u, h, eps, s, t, rows, columns);
          });
    m.def("tangent_marginals",
          [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t dx, uintptr_t dy,
             uintptr_t rows, uintptr_t columns) {
              SINKDIV_BOTH(tangent_marginals)(batch, u, h, eps, dx, dy, rows, columns);
          });
    m.def("weighted_gradient",
          [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
             uintptr_t out) { SINKDIV_BOTH(weighted_gradient)(batch, u, h, eps, s, t, out); });
    m.def("weighted_plan",
          [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
             uintptr_t out) { SINKDIV_BOTH(weighted_plan)(batch, u, h, eps, s, t, out); });
    m.def("gradient_tangent",
          [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t s, uintptr_t t,
             uintptr_t dx, uintptr_t dy, uintptr_t out) {
              SINKDIV_BOTH(gradient_tangent)(batch, u, h, eps, s, t, dx, dy, out);
          });
    m.def("plan_cost", [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t out) {
        SINKDIV_BOTH(plan_cost)(batch, u, h, eps, out);
    });
    m.def("plan_matrix", [](bool wide, const Batch& batch, uintptr_t u, uintptr_t h, uintptr_t eps, uintptr_t out) {
        SINKDIV_BOTH(plan_matrix)(batch, u, h, eps, out);
    });
    m.def("corrected_primal",
          [](bool wide, const Batch& batch, uintptr_t a, uintptr_t b, uintptr_t log_u, uintptr_t log_h, uintptr_t eps,
             uintptr_t p, uintptr_t q, uintptr_t out) {
              SINKDIV_BOTH(corrected_primal)(batch, a, b, log_u, log_h, eps, p, q, out);
          });
    using sinkdiv::SmallBatch;
    nb::class_<SmallBatch>(m, "SmallBatch")
        .def("__init__",
             [](SmallBatch* self, const Batch& pairs, uintptr_t eps, double rho_f, double rho_g, bool symmetric,
                uintptr_t a, uintptr_t b, uintptr_t start, uintptr_t results, uintptr_t passes, uintptr_t history,
                uintptr_t gradient, int64_t checks) {
                 new (self) SmallBatch{pairs, reinterpret_cast<const double*>(eps), rho_f, rho_g, symmetric, a, b,
                                       start, results, passes, history, gradient, checks};
             });
    m.def("solve_small", [](bool wide, const std::vector<SmallBatch*>& batches, double tol, int64_t max_passes) {
        SINKDIV_BOTH(solve_small)(batches, tol, max_passes);
    });
    m.attr("SMALL_SIDE") = sinkdiv::SMALL_SIDE;
    m.attr("NARROW") = sinkdiv::PackedOperand<double>::NARROW;
    m.def("supported_instruction_sets", &sinkdiv::supported_instruction_sets);
    m.def("instruction_set", [] { return sinkdiv::chosen(); });
    m.def("use_instruction_set", [](const std::string& name) {
        const auto supported = sinkdiv::supported_instruction_sets();
        if (std::find(supported.begin(), supported.end(), name) == supported.end())
            throw nb::value_error("this processor does not support that instruction set");
        sinkdiv::chosen() = name;
    });
}
