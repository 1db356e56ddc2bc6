// SPDX-License-Identifier: MIT
// The header of a safetensors file, read strictly and without trust:
//
//   {"__metadata__": {"key": "value", ...},
//    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
//
// It is parsed event by event, so that the first byte that does not belong there ends it, whatever
// its size, and nothing is allocated that the header does not spell out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "retnet/core/check.hpp"
#include "retnet/io/detail/text.hpp"
#include "retnet/io/dtype.hpp"

namespace retnet::inline RETNET_ABI::detail {

inline constexpr std::size_t kMaxHeader = 100'000'000;  // bytes, the format's own limit
inline constexpr const char* kMetadataName = "__metadata__";

struct HeaderTensor {
  std::string name;
  std::optional<Dtype> dtype;
  std::vector<Index> shape;
  std::vector<Index> offsets;  // begin, end
};

/// The receiver of nlohmann's parse events. Throws std::invalid_argument.
class HeaderParser {
  using Json = nlohmann::json;

 public:
  HeaderParser(const char* where, std::string_view file) : where_(where), file_(file) {}

  std::map<std::string, std::string> metadata;
  std::vector<HeaderTensor> tensors;

  bool null() { return fail("null"); }
  bool boolean(bool) { return fail("a boolean"); }
  bool number_integer(Json::number_integer_t value) { return fail(std::to_string(value)); }
  bool number_float(Json::number_float_t, const std::string& text) { return fail(shown(text)); }
  bool binary(Json::binary_t&) { return fail("binary data"); }

  bool number_unsigned(Json::number_unsigned_t value) {
    if (place_ != Place::list) return fail(std::to_string(value));
    if (value > static_cast<std::uint64_t>((std::numeric_limits<Index>::max)()))
      return fail(std::to_string(value));
    list_->push_back(static_cast<Index>(value));
    return true;
  }

  bool string(std::string& value) {
    if (place_ == Place::metadata) {
      metadata[key_] = std::move(value);
      return true;
    }
    if (place_ != Place::tensor || key_ != "dtype") return fail(concat("\"", shown(value), "\""));
    tensors.back().dtype = dtype_from_name(value);
    return tensors.back().dtype || fail(concat("\"", shown(value), "\""));
  }

  bool start_object(std::size_t) {
    switch (place_) {
      case Place::start: place_ = Place::header; return true;
      case Place::metadata_value: place_ = Place::metadata; return true;
      case Place::tensor_value: place_ = Place::tensor; return true;
      default: return fail("an object");
    }
  }

  bool key(std::string& name) {
    if (place_ == Place::header) return start_entry(name);
    key_ = std::move(name);
    if (place_ == Place::metadata)
      return !metadata.contains(key_) || refuse("the key is given twice, expected distinct keys");
    return start_field();
  }

  bool end_object() {
    if (place_ == Place::tensor) {
      const auto& t = tensors.back();
      key_.clear();
      if (seen_ != kAllFields)
        return refuse("fields are missing, expected dtype, shape and data_offsets");
      if (t.offsets.size() != 2)
        return refuse(concat("data_offsets has ", t.offsets.size(), " entries, expected 2"));
    }
    place_ = place_ == Place::header ? Place::start : Place::header;
    return true;
  }

  bool start_array(std::size_t) {
    if (place_ != Place::tensor || key_ == "dtype") return fail("an array");
    list_ = key_ == "shape" ? &tensors.back().shape : &tensors.back().offsets;
    place_ = Place::list;
    return true;
  }
  bool end_array() {
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t byte, const std::string&, const Json::exception&) {
    throw_invalid(where_, file_, ": the header is not valid JSON at its byte ", byte,
                  ", expected an object of tensors in UTF-8");
  }

 private:
  enum class Place { start, header, metadata_value, metadata, tensor_value, tensor, list };
  static constexpr unsigned kDtype = 1, kShape = 2, kOffsets = 4, kAllFields = 7;

  bool start_entry(std::string& name) {
    name_ = std::move(name);
    key_.clear();
    if (name_ == kMetadataName) {
      if (has_metadata_) return refuse("the key is given twice, expected distinct names");
      has_metadata_ = true;
      place_ = Place::metadata_value;
    } else {
      tensors.emplace_back().name = name_;
      place_ = Place::tensor_value;
      seen_ = 0;
    }
    return true;
  }

  bool start_field() {
    const unsigned field = key_ == "dtype"          ? kDtype
                           : key_ == "shape"        ? kShape
                           : key_ == "data_offsets" ? kOffsets
                                                    : 0;
    if (field == 0) return refuse("unknown field, expected dtype, shape and data_offsets");
    if ((seen_ & field) != 0) return refuse("the field is given twice, expected it once");
    seen_ |= field;
    return true;
  }

  const char* expected() const {
    switch (place_) {
      case Place::start: return "an object of tensors";
      case Place::header: return "a name";
      case Place::metadata_value: return "an object of strings";
      case Place::metadata: return "a string";
      case Place::tensor_value: return "an object of dtype, shape and data_offsets";
      case Place::tensor: return key_ == "dtype" ? "a known dtype, such as \"F32\"" : "an array";
      case Place::list: return "integers from 0 to 2^63 - 1";
    }
    return "";
  }
  bool fail(const std::string& given) { return refuse(concat(given, ", expected ", expected())); }
  [[noreturn]] bool refuse(const std::string& what) {
    if (place_ == Place::start) throw_invalid(where_, file_, ": the header is ", what);
    throw_invalid(where_, file_, ": ", shown(name_), key_.empty() ? "" : " ",
                  key_.empty() ? "" : shown(key_), ": ", what);
  }

  const char* where_;
  std::string_view file_;
  Place place_ = Place::start;
  std::string name_, key_;
  bool has_metadata_ = false;
  unsigned seen_ = 0;
  std::vector<Index>* list_ = nullptr;
};

/// The product of the shape times the size of an element; none if it overflows.
inline std::optional<Index> byte_size(std::span<const Index> shape, Dtype dtype) {
  Index n = static_cast<Index>(dtype_bytes(dtype));
  for (const Index d : shape) {
    if (d != 0 && n > (std::numeric_limits<Index>::max)() / d) return std::nullopt;
    n *= d;
  }
  return n;
}

/// Sorts by name.
inline void check_distinct(const char* where, std::string_view file,
                           std::vector<HeaderTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  for (std::size_t i = 1; i < tensors.size(); ++i)
    RETNET_CHECK(tensors[i].name != tensors[i - 1].name, where, file, ": ", shown(tensors[i].name),
                 ": the tensor is given twice, expected distinct names");
}

/// Every tensor has the size it claims, and together they cover the data once, without holes.
inline void check_offsets(const char* where, std::string_view file,
                          const std::vector<HeaderTensor>& tensors, Index data_bytes) {
  std::vector<const HeaderTensor*> order;
  for (const auto& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->offsets < b->offsets; });
  Index covered = 0;
  for (const HeaderTensor* t : order) {
    const Index begin = t->offsets[0], end = t->offsets[1];
    const auto size = byte_size(t->shape, *t->dtype);
    const auto check = [&](bool good, const auto&... text) {
      RETNET_CHECK(good, where, file, ": ", shown(t->name), ": ", text...);
    };
    const std::string type = concat(dtype_name(*t->dtype), " ", shape_text(t->shape));
    check(begin <= end && end <= data_bytes, "data_offsets are [", begin, ",", end,
          "], expected a range within the ", data_bytes, " bytes after the header");
    check(size.has_value(), type, " has more bytes than can be counted, expected ", end - begin);
    check(*size == end - begin, type, " in ", end - begin, " bytes, expected ", *size);
    check(begin >= covered, "data_offsets are [", begin, ",", end,
          "], which overlaps a tensor before it, expected to begin at ", covered);
    check(begin <= covered, "data_offsets are [", begin, ",", end,
          "], which leaves a hole before it, expected to begin at ", covered);
    covered = end;
  }
  RETNET_CHECK(covered == data_bytes, where, file, ": the tensors cover ", covered, " of ",
               data_bytes, " bytes after the header, expected all");
}

/// Parses and checks the header; the tensors come back sorted by name.
inline HeaderParser parse_header(const char* where, std::string_view file, std::string_view header,
                                 std::size_t data_bytes) {
  // The JSON reader would skip a byte order mark, and take a zero byte for the end.
  RETNET_CHECK(header.starts_with('{') && header.find('\0') == std::string_view::npos, where, file,
               ": the header does not begin with '{', or holds a zero byte, expected JSON");
  HeaderParser parser(where, file);
  nlohmann::json::sax_parse(header.begin(), header.end(), &parser);
  check_distinct(where, file, parser.tensors);
  check_offsets(where, file, parser.tensors, static_cast<Index>(data_bytes));
  return parser;
}

}  // namespace retnet::inline RETNET_ABI::detail
