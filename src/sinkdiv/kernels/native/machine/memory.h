// Memory for a call: kept from call to call, aligned to cache lines, and apart for each thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace sinkdiv {

inline int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Memory of earlier calls of this thread. A fresh large allocation costs a page fault every 4 kB,
// which for a small problem is as much as its passes.
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

}  // namespace sinkdiv
