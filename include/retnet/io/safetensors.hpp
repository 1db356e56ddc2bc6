// SPDX-License-Identifier: MIT
// Reading and writing safetensors (https://github.com/huggingface/safetensors): the size of a
// header as 8 little-endian bytes, the header in JSON, the raw tensors. Any tool reads such files.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/safetensors_header.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/io/dtype.hpp"
#include "retnet/io/file.hpp"

namespace retnet::inline RETNET_ABI {

/// One tensor of a file. The bytes are borrowed from it, row-major, and may be unaligned.
struct StoredTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  std::span<const std::byte> bytes;

  std::size_t size() const { return bytes.size() / dtype_bytes(dtype); }  // elements
  /// "F32 [2,3]"
  std::string describe() const {
    return detail::concat(dtype_name(dtype), " ", detail::shape_text(shape));
  }
};

/// A safetensors file, checked from front to back before the first tensor is given out: sizes,
/// ranges, no overlap, no hole, no name twice. Copies share the mapping; tensors live as long as
/// one of them.
class SafetensorsFile {
 public:
  /// Throws std::system_error when the file cannot be read, std::invalid_argument naming file and
  /// tensor when it is not what the format demands.
  explicit SafetensorsFile(const std::string& path) : name_(path), file_(path) {
    parse(file_.bytes());
  }
  /// The same from memory, which must outlive the object. `name` stands for the file in messages.
  explicit SafetensorsFile(std::span<const std::byte> bytes, std::string name = "memory")
      : name_(std::move(name)) {
    parse(bytes);
  }

  const std::string& name() const { return name_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // sorted by name

  /// Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const {
    const auto it = std::ranges::lower_bound(tensors_, name, {}, &StoredTensor::name);
    return it != tensors_.end() && it->name == name ? &*it : nullptr;
  }
  /// Throws std::invalid_argument if there is none of that name.
  const StoredTensor& at(std::string_view name) const {
    const StoredTensor* tensor = find(name);
    RETNET_CHECK(tensor != nullptr, "SafetensorsFile::at", name_, ": no tensor ",
                 detail::shown(name), ", expected one of the ", tensors_.size(), " in the file");
    return *tensor;
  }

  /// The elements of a tensor of this file. F64, F32, F16 and BF16 are read into any of double,
  /// float, half and bfloat16, with rounding; integers into integers that hold them; BOOL into
  /// bool.
  /// Throws std::invalid_argument for another type or number of elements, or an integer too large.
  template <Storable S>
  void read(const StoredTensor& tensor, std::span<S> out) const {
    const auto check = [&](bool good, const auto&... expected) {
      RETNET_CHECK(good, "SafetensorsFile::read", name_, ": ", detail::shown(tensor.name), " is ",
                   tensor.describe(), expected...);
    };
    check(tensor.size() == out.size(), ", expected ", out.size(), " elements");
    const auto done = detail::convert(tensor.dtype, tensor.bytes, out);
    check(done != detail::Converted::wrong_kind, ", expected ", detail::readable_dtypes<S>());
    check(done != detail::Converted::out_of_range, " with values that do not fit, expected ",
          dtype_name(dtype_of<S>()));
  }
  template <StorableNumber S>
  std::vector<S> read(std::string_view name) const {
    const StoredTensor& tensor = at(name);
    std::vector<S> out(tensor.size());
    read(tensor, std::span<S>(out));
    return out;
  }

 private:
  static constexpr const char* kWhere = "SafetensorsFile::SafetensorsFile";

  void parse(std::span<const std::byte> bytes) {
    std::uint64_t length = 0;
    RETNET_CHECK(bytes.size() >= sizeof length, kWhere, name_, " has ", bytes.size(),
                 " bytes, expected at least 8");
    std::memcpy(&length, bytes.data(), sizeof length);
    const auto rest = bytes.subspan(sizeof length);
    RETNET_CHECK(length <= rest.size() && length <= detail::kMaxHeader, kWhere, name_,
                 ": the header has ", length, " bytes, expected at most ",
                 std::min(rest.size(), detail::kMaxHeader));
    const auto size = static_cast<std::size_t>(length);
    const std::string_view header(reinterpret_cast<const char*>(rest.data()), size);
    const auto data = rest.subspan(size);
    auto parsed = detail::parse_header(kWhere, name_, header, data.size());
    metadata_ = std::move(parsed.metadata);
    tensors_.reserve(parsed.tensors.size());
    for (auto& t : parsed.tensors)
      tensors_.push_back({std::move(t.name), *t.dtype, std::move(t.shape),
                          data.subspan(static_cast<std::size_t>(t.offsets[0]),
                                       static_cast<std::size_t>(t.offsets[1] - t.offsets[0]))});
  }

  std::string name_;
  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<StoredTensor> tensors_;
};

/// Collects tensors and writes them. The elements are borrowed until write() or bytes() returns.
///
/// The output depends on what was added, not on the order: wide element types first, so that all
/// are aligned, and by name among equals, as the format recommends; metadata sorted by key.
class SafetensorsWriter {
 public:
  /// `values`: an lvalue array, vector or Buffer, or a span, of as many elements as the shape says.
  /// Throws std::invalid_argument if it is not, or if the name is taken, reserved or not UTF-8.
  template <std::ranges::borrowed_range Range>
    requires std::ranges::contiguous_range<Range> && Storable<std::ranges::range_value_t<Range>>
  void add(std::string name, std::vector<Index> shape, Range&& values) {
    const std::span elements(std::ranges::begin(values), std::ranges::end(values));
    add(std::move(name), dtype_of<std::ranges::range_value_t<Range>>(), std::move(shape),
        std::as_bytes(elements));
  }

  /// The same from raw little-endian bytes.
  void add(std::string name, Dtype dtype, std::vector<Index> shape,
           std::span<const std::byte> bytes) {
    constexpr const char* kWhere = "SafetensorsWriter::add";
    quoted(kWhere, name);
    RETNET_CHECK(name != detail::kMetadataName && !tensors_.contains(name), kWhere,
                 detail::shown(name), " is taken or reserved, expected distinct names");
    RETNET_CHECK(std::ranges::all_of(shape, [](Index n) { return n >= 0; }) &&
                     detail::byte_size(shape, dtype) == static_cast<Index>(bytes.size()),
                 kWhere, detail::shown(name), " is ", dtype_name(dtype), " ",
                 detail::shape_text(shape), ", given ", bytes.size(),
                 " bytes, expected as many as the shape says");
    StoredTensor tensor{name, dtype, std::move(shape), bytes};
    tensors_.emplace(std::move(name), std::move(tensor));
  }

  /// Free text beside the tensors; a later value of a key replaces the earlier. Throws
  /// std::invalid_argument if either is not UTF-8.
  void metadata(const std::string& key, const std::string& value) {
    quoted("SafetensorsWriter::metadata", key);
    quoted("SafetensorsWriter::metadata", value);
    metadata_[key] = value;
  }

  /// Writes the file whole or not at all (AtomicFile). Throws std::system_error naming it.
  void write(const std::string& path) const {
    AtomicFile file(path);
    emit([&](std::span<const std::byte> bytes) { file.write(bytes); });
    file.commit();
  }

  /// The file in memory.
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> out;
    emit([&](std::span<const std::byte> bytes) {
      out.insert(out.end(), bytes.begin(), bytes.end());
    });
    return out;
  }

 private:
  static std::string quoted(const char* where, const std::string& text) {
    try {
      return nlohmann::json(text).dump();
    } catch (const nlohmann::json::type_error&) {
      throw_invalid(where, detail::shown(text), " is not UTF-8, expected UTF-8");
    }
  }

  std::vector<const StoredTensor*> ordered() const {
    std::vector<const StoredTensor*> out;
    for (const auto& [name, tensor] : tensors_) out.push_back(&tensor);
    std::ranges::stable_sort(out, std::greater<>(),
                             [](const StoredTensor* t) { return dtype_bytes(t->dtype); });
    return out;
  }

  std::string header(const std::vector<const StoredTensor*>& order) const {
    constexpr const char* kWhere = "SafetensorsWriter::write";
    std::string text = "{";
    const auto entry = [&](const std::string& name) {
      if (text.size() > 1) text += ',';
      text += quoted(kWhere, name) + ':';
    };
    if (!metadata_.empty()) {
      entry(detail::kMetadataName);
      text += nlohmann::json(metadata_).dump();
    }
    std::size_t offset = 0;
    for (const StoredTensor* t : order) {
      const std::size_t end = offset + t->bytes.size();
      entry(t->name);
      text += detail::concat("{\"dtype\":\"", dtype_name(t->dtype),
                             "\",\"shape\":", detail::shape_text(t->shape), ",\"data_offsets\":[",
                             offset, ",", end, "]}");
      offset = end;
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    RETNET_CHECK(text.size() <= detail::kMaxHeader, kWhere, "the header has ", text.size(),
                 " bytes, expected at most ", detail::kMaxHeader);
    return text;
  }

  template <class Sink>
  void emit(const Sink& sink) const {
    const auto order = ordered();
    const std::string text = header(order);
    const auto length = static_cast<std::uint64_t>(text.size());
    sink(std::as_bytes(std::span(&length, 1)));
    sink(std::as_bytes(std::span(text)));
    for (const StoredTensor* t : order) sink(t->bytes);
  }

  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace retnet::inline RETNET_ABI
