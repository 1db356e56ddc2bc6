// SPDX-License-Identifier: MIT
// Parameters are places in one flat buffer. Weights, gradients and optimiser moments share one
// layout, so updating, clipping, saving and reducing are loops over a span, and a copied model
// cannot dangle.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "retnet/core/buffer.hpp"
#include "retnet/core/check.hpp"
#include "retnet/core/rng.hpp"
#include "retnet/core/window.hpp"

namespace retnet::inline RETNET_ABI {

/// A place: where a matrix [rows, cols] lies in the flat buffer. Vectors have one row.
struct Param {
  Index offset = 0;
  Index rows = 0;
  Index cols = 0;

  Index size() const { return rows * cols; }
  explicit operator bool() const { return size() > 0; }
};

/// How a parameter starts. Matrices are [out, in].
struct Init {
  enum class Kind { zeros, ones, normal, xavier_uniform, kaiming_uniform };
  Kind kind = Kind::zeros;
  double gain = 1.0;  // xavier: gain; kaiming: multiplies the bound; normal: standard deviation
};

struct ParamEntry {
  std::string name;
  Param place;
  Init init;
  bool decays;  // weight decay applies: matrices yes; norms, biases and embeddings no
};

class ParamLayout {
 public:
  /// Where a parameter [rows, cols] of a name lies, counted in elements.
  using Placement = std::function<Index(const std::string& name, Index rows, Index cols)>;

  ParamLayout() = default;
  /// Parameters lie where `placement` says, in a mapped file for instance, instead of side by side.
  explicit ParamLayout(Placement placement) : placement_(std::move(placement)) {}

  /// An empty layout of the same size that will put every parameter where this one has it.
  ParamLayout like() const {
    std::unordered_map<std::string, Index> offsets;
    for (const auto& e : entries_) offsets[e.name] = e.place.offset;
    ParamLayout out([offsets = std::move(offsets)](const std::string& name, Index, Index) {
      return offsets.at(name);
    });
    out.size_ = size_;
    return out;
  }

  Param add(std::string name, Index rows, Index cols, Init init, bool decays = true) {
    RETNET_CHECK(rows > 0 && cols > 0, "ParamLayout::add", name, " has shape [", rows, ",", cols,
                 "], expected positive sizes");
    RETNET_CHECK(find(name) == nullptr, "ParamLayout::add", name,
                 " was given twice, expected distinct names");
    const Param place{placement_ ? placement_(name, rows, cols) : size_, rows, cols};
    constexpr Index kStep = kAlignment / sizeof(bfloat16);  // aligned in every storage type
    const Index end = place.offset + place.size();
    size_ = std::max(size_, placement_ ? end : (end + kStep - 1) / kStep * kStep);
    index_.emplace(name, entries_.size());
    entries_.push_back({std::move(name), place, init, decays});
    return place;
  }

  std::span<const ParamEntry> entries() const { return entries_; }
  Index size() const { return size_; }  // elements, alignment gaps included
  Index count() const {                 // parameters, gaps not included
    Index n = 0;
    for (const auto& e : entries_) n += e.place.size();
    return n;
  }
  const ParamEntry* find(std::string_view name) const {
    const auto it = index_.find(std::string(name));
    return it == index_.end() ? nullptr : &entries_[it->second];
  }

 private:
  std::vector<ParamEntry> entries_;
  std::unordered_map<std::string, std::size_t> index_;  // of a name's entry
  Index size_ = 0;
  Placement placement_;
};

/// A borrowed flat buffer: what layers read their weights from and add their gradients to.
template <class S>
class ParamRef {
 public:
  ParamRef() = default;
  explicit ParamRef(S* flat) : flat_(flat) {}
  template <class Other>
    requires(std::is_const_v<S> && std::is_same_v<Other, std::remove_const_t<S>>)
  ParamRef(const ParamRef<Other>& o) : flat_(o.flat()) {}  // NOLINT(google-explicit-constructor)

  Window<S> operator[](Param p) const { return {p ? flat_ + p.offset : nullptr, p.rows, p.cols}; }
  S* flat() const { return flat_; }
  explicit operator bool() const { return flat_ != nullptr; }

 private:
  S* flat_ = nullptr;
};

template <class S>
class ParamBuffer {
 public:
  ParamBuffer() = default;
  explicit ParamBuffer(const ParamLayout& layout) : data_(layout.size()) { zero(); }
  /// Numbers that lie elsewhere and stay there while `owner` lives; copies share them. Writing to
  /// such a buffer throws std::invalid_argument: cast() makes one of its own.
  ParamBuffer(std::span<const S> elsewhere, std::shared_ptr<const void> owner)
      : elsewhere_(elsewhere), owner_(std::move(owner)) {}

  bool borrows() const { return owner_ != nullptr; }
  void zero() { std::ranges::fill(flat(), S(0)); }
  std::span<S> flat() {
    RETNET_CHECK(!borrows(), "ParamBuffer::flat", "write access to borrowed weights of ",
                 elsewhere_.size(), " elements, expected a copy of them: cast<Scalar>()");
    return data_.span();
  }
  std::span<const S> flat() const { return borrows() ? elsewhere_ : data_.span(); }
  Window<S> operator[](Param p) { return ref()[p]; }
  Window<const S> operator[](Param p) const { return ref()[p]; }
  ParamRef<S> ref() { return ParamRef<S>(flat().data()); }
  ParamRef<const S> ref() const { return ParamRef<const S>(flat().data()); }
  bool empty() const { return flat().empty(); }

  /// The same numbers in another type, or in memory of its own: bfloat16 copies, double gradient
  /// checks.
  template <class U>
  ParamBuffer<U> cast() const {
    const auto from = flat();
    ParamBuffer<U> out;
    out.data_.resize(static_cast<Index>(from.size()));
    std::transform(from.begin(), from.end(), out.data_.data(),
                   [](const S& x) { return scalar_cast<U>(x); });
    return out;
  }

 private:
  template <class>
  friend class ParamBuffer;
  Buffer<S> data_;
  std::span<const S> elsewhere_;
  std::shared_ptr<const void> owner_;
};

/// The numbers of `values`, which lie as `from` says, where `to` has the parameters of their names.
template <class S, class W>
ParamBuffer<S> rearranged(const ParamBuffer<W>& values, const ParamLayout& from,
                          const ParamLayout& to) {
  ParamBuffer<S> out(to);
  for (const auto& e : to.entries()) {
    const ParamEntry* source = from.find(e.name);
    RETNET_CHECK(source != nullptr && source->place.size() == e.place.size(), "rearranged", e.name,
                 " is missing or of another size, expected [", e.place.rows, ",", e.place.cols, "]");
    const W* x = values[source->place].data;
    std::transform(x, x + e.place.size(), out[e.place].data,
                   [](const W& w) { return scalar_cast<S>(w); });
  }
  return out;
}

/// Fills every parameter by its rule. The numbers depend on the seed and on the place in the
/// layout, not on the scalar: a float and a double model of one seed agree to float rounding.
template <class S>
void initialize(ParamBuffer<S>& buffer, const ParamLayout& layout, Seed seed) {
  std::uint64_t stream = 0;
  for (const auto& e : layout.entries()) {
    const Index n = e.place.size();
    const auto fan_in = static_cast<double>(e.place.cols);
    const auto fan_out = static_cast<double>(e.place.rows);
    S* w = buffer[e.place].data;
    for (Index i = 0; i < n; ++i) {
      const auto counter = static_cast<std::uint64_t>(i);
      const auto sign = [&] { return 2.0 * uniform(seed, stream, counter) - 1.0; };
      double value = 0.0;
      switch (e.init.kind) {
        case Init::Kind::zeros: break;
        case Init::Kind::ones: value = 1.0; break;
        case Init::Kind::normal: value = e.init.gain * normal(seed, stream, counter); break;
        case Init::Kind::xavier_uniform:
          value = sign() * e.init.gain * std::sqrt(6.0 / (fan_in + fan_out));
          break;
        case Init::Kind::kaiming_uniform: value = sign() * e.init.gain / std::sqrt(fan_in); break;
      }
      w[i] = scalar_cast<S>(value);
    }
    ++stream;
  }
}

}  // namespace retnet::inline RETNET_ABI
