// SPDX-License-Identifier: MIT
// Workspace: a bump arena with scopes. It grows while the first step finds out how much is needed;
// afterwards taking memory is an addition.
#pragma once

#include <cstddef>
#include <vector>

#include "retnet/core/buffer.hpp"

namespace retnet::inline RETNET_ABI {

class Workspace {
 public:
  /// Gives back on destruction everything taken since construction.
  class Scope {
   public:
    explicit Scope(Workspace& w) : w_(w), block_(w.block_), used_(w.used_) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() {
      w_.block_ = block_;
      w_.used_ = used_;
      if (block_ == 0 && used_ == 0) w_.merge();
    }

   private:
    Workspace& w_;
    std::size_t block_;
    std::size_t used_;
  };

  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  [[nodiscard]] Scope scope() { return Scope(*this); }

  /// n elements, aligned, uninitialised, valid until the enclosing scope ends.
  template <class T>
  T* take(Index n) {
    const std::size_t size =
        (static_cast<std::size_t>(n) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    while (block_ < blocks_.size() && used_ + size > capacity(block_)) {
      ++block_;
      used_ = 0;
    }
    if (block_ == blocks_.size()) {
      const std::size_t least = std::size_t{1} << 16;
      blocks_.emplace_back(static_cast<Index>(size > least ? size : least));
    }
    auto* p = reinterpret_cast<T*>(blocks_[block_].data() + used_);
    used_ += size;
    std::size_t held = used_;
    for (std::size_t b = 0; b < block_; ++b) held += capacity(b);
    if (held > peak_) peak_ = held;
    detail::poison(p, n);
    return p;
  }

  /// Most bytes in use at one time since construction or reset_peak().
  std::size_t peak_bytes() const { return peak_; }
  void reset_peak() { peak_ = 0; }

 private:
  std::size_t capacity(std::size_t block) const {
    return static_cast<std::size_t>(blocks_[block].size());
  }
  // Several blocks become one of their total size, so that the next round fits without growing.
  void merge() {
    if (blocks_.size() < 2) return;
    std::size_t total = 0;
    for (std::size_t b = 0; b < blocks_.size(); ++b) total += capacity(b);
    blocks_.clear();
    blocks_.emplace_back(static_cast<Index>(total));
  }

  std::vector<Buffer<std::byte>> blocks_;
  std::size_t block_ = 0;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace retnet::inline RETNET_ABI
