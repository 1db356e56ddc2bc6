// SPDX-License-Identifier: MIT
// Checkpoints: flat buffers, states and counters as one safetensors file, each tensor under the
// name of its parameter. Written whole or not at all; read strictly, and all of it or nothing.
//
//   CheckpointWriter out;                      CheckpointReader in("run.safetensors");
//   out.add_params("", layout, weights);       in.expect_params("", layout, weights);
//   out.add_params("adam.m.", layout, m);      in.expect_params("adam.m.", layout, m);
//   out.set("step", step);                     in.load();
//   out.write("run.safetensors");              step = in.get<std::int64_t>("step");
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/core/params.hpp"
#include "retnet/io/detail/value_text.hpp"
#include "retnet/io/safetensors.hpp"
#include "retnet/layers/key_value_state.hpp"
#include "retnet/layers/retention_state.hpp"
#include "retnet/model/model_state.hpp"

namespace retnet::inline RETNET_ABI {

/// Of the names and metadata below; files of a later version are refused.
inline constexpr int kCheckpointVersion = 1;

namespace detail {

/// f(name, shape, elements) for the tensors of a state: [N,H,Dk,Dv], [N,H,Dk] with key sums, [N].
template <class State, class F>
void for_each_tensor(State& s, const std::string& prefix, F&& f) {
  const Index n = s.sequences(), h = s.heads(), dk = s.key_dim(), dv = s.value_dim();
  const auto matrices = static_cast<std::size_t>(n * h * dk * dv);
  f(prefix + "matrices", std::vector<Index>{n, h, dk, dv}, s.flat().first(matrices));
  if (s.has_key_sum())
    f(prefix + "key_sums", std::vector<Index>{n, h, dk}, s.flat().subspan(matrices));
  f(prefix + "positions", std::vector<Index>{n}, s.positions());
}
inline std::string layer_prefix(std::string_view prefix, std::size_t layer) {
  return concat(prefix, "layers.", layer, ".");
}
/// What every file of this library says of itself.
inline void describe_checkpoint(SafetensorsWriter& out) {
  out.metadata("format", "retnet");
  out.metadata("format_version", std::to_string(kCheckpointVersion));
  out.metadata("library_version", RETNET_VERSION_STRING);
}
/// Throws std::invalid_argument for a retnet file of a later version.
inline void check_version(const char* where, std::string_view file,
                          const std::map<std::string, std::string>& metadata) {
  const auto format = metadata.find("format"), found = metadata.find("format_version");
  if (format == metadata.end() || format->second != "retnet") return;
  const std::string text = found == metadata.end() ? "" : found->second;
  const int version = value_from_text<int>(text).value_or(0);
  RETNET_CHECK(version >= 1 && version <= kCheckpointVersion, where, file, ": format_version is ",
               shown(text), ", expected 1 to ", kCheckpointVersion);
}
/// A vector is one row for the layers; in files it is a vector.
inline std::vector<Index> param_shape(Param place) {
  if (place.rows == 1) return {place.cols};
  return {place.rows, place.cols};
}

}  // namespace detail

/// Collects what a file shall hold. Buffers and states are borrowed until write() returns.
class CheckpointWriter {
 public:
  CheckpointWriter() { detail::describe_checkpoint(tensors_); }

  /// Every parameter as a tensor `prefix` + its name of its own type: [rows,cols], vectors [cols].
  /// Throws std::invalid_argument if buffer and layout differ in size or a name is taken.
  template <detail::StoredFloat S>
  void add_params(std::string_view prefix, const ParamLayout& layout,
                  const ParamBuffer<S>& buffer) {
    RETNET_CHECK(static_cast<Index>(buffer.flat().size()) == layout.size(),
                 "CheckpointWriter::add_params", "a buffer of ", buffer.flat().size(),
                 " elements, expected ", layout.size(), " as the layout has");
    for (const auto& e : layout.entries()) {
      const auto values = buffer.flat().subspan(static_cast<std::size_t>(e.place.offset),
                                                static_cast<std::size_t>(e.place.size()));
      tensors_.add(detail::concat(prefix, e.name), detail::param_shape(e.place), values);
    }
  }

  /// The sums, key sums and positions of a state under `prefix`; deferred tokens are in the sums.
  template <detail::StoredFloat S>
  void add_state(std::string_view prefix, const RetentionState<S>& given) {
    const RetentionState<S>* settled = &given;
    if (given.deferred()) {
      auto copy = std::make_shared<RetentionState<S>>(given);
      copy->defer(1);
      settled = copy.get();
      copies_.push_back(std::move(copy));
    }
    const RetentionState<S>& state = *settled;
    detail::for_each_tensor(state, std::string(prefix),
                            [&](const auto& name, const auto& shape, auto values) {
                              tensors_.add(name, shape, values);
                            });
  }
  /// The keys and values that are remembered, keys.i and values.i of sequence i, oldest first, and
  /// the positions under `prefix`.
  template <detail::StoredFloat S>
  void add_state(std::string_view prefix, const KeyValueState<S>& state) {
    for (Index i = 0; i < state.sequences(); ++i) {
      const auto past = state.past(i);
      tensors_.add(detail::concat(prefix, "keys.", i), {past.length, state.key_width()},
                   in_order(past.keys, past));
      tensors_.add(detail::concat(prefix, "values.", i), {past.length, state.value_width()},
                   in_order(past.values, past));
    }
    tensors_.add(detail::concat(prefix, "positions"), {state.sequences()}, state.positions());
  }
  template <detail::StoredFloat S>
  void add_state(std::string_view prefix, const ModelState<S>& state) {
    for (std::size_t l = 0; l < state.layers.size(); ++l)
      std::visit([&](const auto& s) { add_state(detail::layer_prefix(prefix, l), s); },
                 static_cast<const typename LayerState<S>::Variant&>(state.layers[l]));
    if (!state.cross.empty()) add_state(detail::concat(prefix, "cross."), state.cross);
  }

  /// A number, bool or text, which get<T>() gives back exactly, NaN and infinities included. Throws
  /// std::invalid_argument for the keys format, format_version and library_version.
  template <detail::TextWritable T>
  void set(const std::string& key, const T& value) {
    RETNET_CHECK(key != "format" && key != "format_version" && key != "library_version",
                 "CheckpointWriter::set", key, " is taken, expected a key of your own");
    tensors_.metadata(key, detail::value_text(value));
  }

  /// Throws std::system_error naming the file; an old file of that name is whole then.
  void write(const std::string& path) const { tensors_.write(path); }
  /// The file in memory.
  std::vector<std::byte> bytes() const { return tensors_.bytes(); }

 private:
  // The rows of a ring, oldest first, in memory that lives as long as the writer.
  template <class S>
  std::span<const S> in_order(const Window<const S>& ring, const AttentionPast<S>& past) {
    auto rows = std::make_shared<Buffer<S>>(past.length * ring.cols);
    for (Index t = 0; t < past.length; ++t)
      std::copy_n(ring.row((past.first + t) % ring.rows), ring.cols, rows->data() + t * ring.cols);
    copies_.push_back(rows);
    return std::as_const(*rows).span();
  }

  SafetensorsWriter tensors_;
  std::vector<std::shared_ptr<const void>> copies_;
};

/// Reads what CheckpointWriter wrote, and any safetensors file with the same tensor names. First
/// name everything that the file holds, then load().
class CheckpointReader {
 public:
  /// Throws std::system_error or std::invalid_argument as SafetensorsFile does, and the latter for
  /// a retnet file of a later version.
  explicit CheckpointReader(const std::string& path) : CheckpointReader(SafetensorsFile(path)) {}
  explicit CheckpointReader(SafetensorsFile file) : file_(std::move(file)) {
    detail::check_version("CheckpointReader::CheckpointReader", file_.name(), file_.metadata());
  }

  const SafetensorsFile& file() const { return file_; }

  /// Announces every parameter of the layout as tensor `prefix` + its name, of any float type. The
  /// buffer must live until load(), which gives it the layout's size if it has another.
  template <detail::StoredFloat S>
  void expect_params(std::string_view prefix, const ParamLayout& layout, ParamBuffer<S>& buffer) {
    if (static_cast<Index>(buffer.flat().size()) != layout.size())
      prepare_.push_back(
          [&buffer, fresh = ParamBuffer<S>(layout)]() mutable { std::swap(buffer, fresh); });
    for (const auto& e : layout.entries())
      expect<S>(detail::concat(prefix, e.name), detail::param_shape(e.place), std::nullopt,
                [&buffer, place = e.place] {
                  return std::span<S>(buffer[place].data, static_cast<std::size_t>(place.size()));
                });
  }

  /// Announces a state under `prefix`: of the same type, N, H, Dk, Dv and key sums as `state`,
  /// which must live until load().
  template <detail::StoredFloat S>
  void expect_state(std::string_view prefix, RetentionState<S>& state) {
    RETNET_CHECK(!state.empty(), "CheckpointReader::expect_state", file_.name(),
                 ": given an empty state, expected one of initial_state(sequences)");
    detail::for_each_tensor(state, std::string(prefix),
                            [&]<class T>(const auto& name, const auto& shape, std::span<T> values) {
                              expect<T>(name, shape, dtype_of<T>(), [values] { return values; });
                            });
  }
  /// A cache of keys and values: of as many tokens as the file holds, within its window.
  template <detail::StoredFloat S>
  void expect_state(std::string_view prefix, KeyValueState<S>& state);
  template <detail::StoredFloat S>
  void expect_state(std::string_view prefix, ModelState<S>& state) {
    RETNET_CHECK(!state.empty(), "CheckpointReader::expect_state", file_.name(),
                 ": given an empty state, expected one of initial_state(sequences)");
    for (std::size_t l = 0; l < state.layers.size(); ++l)
      std::visit([&](auto& s) { expect_state(detail::layer_prefix(prefix, l), s); },
                 static_cast<typename LayerState<S>::Variant&>(state.layers[l]));
    if (!state.cross.empty()) expect_state(detail::concat(prefix, "cross."), state.cross);
  }

  /// Fills everything that was announced. Throws std::invalid_argument, and leaves all of it as it
  /// was, if the file lacks a tensor, holds one that was not announced, or one of another shape or
  /// type; the message names every one of them, with what was expected and found.
  void load();

  bool has(const std::string& key) const { return file_.metadata().contains(key); }
  /// The value of a key. Throws std::invalid_argument if there is none or it is not a T.
  template <detail::TextReadable T>
  T get(const std::string& key) const {
    const auto it = file_.metadata().find(key);
    RETNET_CHECK(it != file_.metadata().end(), "CheckpointReader::get", file_.name(), ": no key ",
                 detail::shown(key), " in the metadata, expected ", detail::value_kind<T>());
    const auto value = detail::value_from_text<T>(it->second);
    RETNET_CHECK(value.has_value(), "CheckpointReader::get", file_.name(), ": ", detail::shown(key),
                 " is ", detail::shown(it->second), ", expected ", detail::value_kind<T>());
    return *value;
  }

 private:
  struct Expected {
    std::vector<Index> shape;
    std::function<std::string(const StoredTensor&)> refuse;  // why it cannot be read; empty: it can
    std::function<void(const SafetensorsFile&, const StoredTensor&)> fill;  // cannot fail then
  };

  template <class T, class Target>
  void expect(std::string name, std::vector<Index> shape, std::optional<Dtype> dtype,
              Target target) {
    Expected e{
        shape, [shape, dtype](const StoredTensor& t) { return mismatch<T>(t, shape, dtype); },
        [target](const SafetensorsFile& file, const StoredTensor& t) { file.read(t, target()); }};
    RETNET_CHECK(expected_.emplace(name, std::move(e)).second, "CheckpointReader::expect_params",
                 file_.name(), ": ", name, " was announced before, expected distinct names");
  }

  template <class T>
  static std::string mismatch(const StoredTensor& t, const std::vector<Index>& shape,
                              std::optional<Dtype> dtype);

  SafetensorsFile file_;
  std::map<std::string, Expected, std::less<>> expected_;
  std::vector<std::function<void()>> prepare_, finish_;
};

template <class T>
std::string CheckpointReader::mismatch(const StoredTensor& t, const std::vector<Index>& shape,
                                       std::optional<Dtype> dtype) {
  const bool readable = dtype ? t.dtype == *dtype : detail::is_float(t.dtype);
  // Other tools keep a vector as [1,n] now and then; the elements are the same.
  const bool row =
      shape.size() == 1 && t.shape.size() == 2 && t.shape[0] == 1 && t.shape[1] == shape[0];
  if (!readable || (t.shape != shape && !row))
    return detail::concat(t.describe(), ", expected ",
                          dtype ? dtype_name(*dtype) : detail::readable_dtypes<T>(), " ",
                          detail::shape_text(shape));
  if constexpr (std::same_as<T, std::int64_t>) {
    for (const std::byte* p = t.bytes.data(); p != t.bytes.data() + t.bytes.size();
         p += sizeof(T)) {
      T position;
      std::memcpy(&position, p, sizeof position);
      if (position < 0) return detail::concat("a position of ", position, ", expected at least 0");
    }
  }
  return {};
}

template <detail::StoredFloat S>
void CheckpointReader::expect_state(std::string_view prefix, KeyValueState<S>& state) {
  RETNET_CHECK(!state.empty(), "CheckpointReader::expect_state", file_.name(),
               ": given an empty state, expected one of initial_state(sequences)");
  const auto count = static_cast<std::size_t>(state.sequences());
  const std::string positions_name = detail::concat(prefix, "positions");
  auto positions = std::make_shared<std::vector<std::int64_t>>(count);
  expect<std::int64_t>(positions_name, {state.sequences()}, Dtype::i64,
                       [positions] { return std::span<std::int64_t>(*positions); });
  const StoredTensor* stored = file_.find(positions_name);  // load() says what is wrong with it
  if (stored && stored->dtype == Dtype::i64 && stored->size() == count)
    file_.read(*stored, std::span<std::int64_t>(*positions));
  for (Index i = 0; i < state.sequences(); ++i) {
    const std::string name = detail::concat(prefix, "keys.", i);
    const StoredTensor* t = file_.find(name);  // bounds what is allocated
    const Index found = t && t->shape.size() == 2 ? t->shape[0] : 0;
    const Index tokens = state.window() > 0 ? std::min(found, state.window()) : found;
    const auto rows = [&](const std::string& tensor, Index width) {
      auto buffer = std::make_shared<Buffer<S>>();
      expect<S>(tensor, {tokens, width}, dtype_of<S>(), [buffer, tokens, width] {
        buffer->resize(tokens * width);
        return buffer->span();
      });
      return buffer;
    };
    const auto keys = rows(name, state.key_width());
    const auto values = rows(detail::concat(prefix, "values.", i), state.value_width());
    const std::int64_t position = (*positions)[static_cast<std::size_t>(i)];
    RETNET_CHECK(tokens == 0 || position >= tokens, "CheckpointReader::expect_state", file_.name(),
                 ": ", name, " holds ", tokens, " tokens, the position is ", position,
                 ", expected no more tokens than were seen");
    finish_.push_back([&state, i, tokens, position, keys, values] {
      state.restore(i, position, {keys->data(), tokens, state.key_width()},
                    {values->data(), tokens, state.value_width()});
    });
  }
}

inline void CheckpointReader::load() {
  std::string problems;
  const auto note = [&](const auto&... text) { problems += detail::concat("\n  ", text...); };
  for (const auto& [name, e] : expected_) {
    const StoredTensor* t = file_.find(name);
    if (t == nullptr) {
      note("missing: ", name, ", expected ", detail::shape_text(e.shape));
    } else if (const auto why = e.refuse(*t); !why.empty()) {
      note(name, " is ", why);
    }
  }
  for (const auto& t : file_.tensors())
    if (!expected_.contains(t.name)) note("unknown: ", detail::shown(t.name), " ", t.describe());
  RETNET_CHECK(problems.empty(), "CheckpointReader::load", file_.name(), " holds ",
               file_.tensors().size(), " tensors, expected these ", expected_.size(), ":",
               problems);
  for (auto& p : prepare_) p();
  for (const auto& [name, e] : expected_) e.fill(file_, *file_.find(name));
  for (auto& f : finish_) f();
  expected_.clear();
  prepare_.clear();
  finish_.clear();
}

/// One buffer as a file: tensors under `prefix` + the names of the layout.
template <detail::StoredFloat S>
void save_params(const std::string& path, const ParamLayout& layout, const ParamBuffer<S>& buffer,
                 std::string_view prefix = "") {
  CheckpointWriter out;
  out.add_params(prefix, layout, buffer);
  out.write(path);
}
/// The same back, from any float type. Throws as CheckpointReader does; `buffer` is unchanged then.
template <detail::StoredFloat S>
void load_params(const std::string& path, const ParamLayout& layout, ParamBuffer<S>& buffer,
                 std::string_view prefix = "") {
  CheckpointReader in(path);
  in.expect_params(prefix, layout, buffer);
  in.load();
}

/// A RetentionState or ModelState as a file, exactly: a prompt cache, a pause in a stream.
template <class State>
void save_state(const std::string& path, const State& state) {
  CheckpointWriter out;
  out.add_state("", state);
  out.write(path);
}
/// Into a state of the same shape and type. Throws as CheckpointReader does; it is unchanged then.
template <class State>
void load_state(const std::string& path, State& state) {
  CheckpointReader in(path);
  in.expect_state("", state);
  in.load();
}

}  // namespace retnet::inline RETNET_ABI
