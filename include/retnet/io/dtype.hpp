// SPDX-License-Identifier: MIT
// The element types of the safetensors format, their sizes, and the C++ types that hold them.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little-endian, and so must be the machine");

// clang-format off
enum class Dtype {
  boolean, u8, i8, f8_e4m3, f8_e5m2, f8_e8m0, i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64
};
// clang-format on

namespace detail {

struct DtypeInfo {
  Dtype dtype;
  const char* name;  // in the header of a file
  std::size_t bytes;
};

inline constexpr std::array kDtypes = {
    DtypeInfo{Dtype::boolean, "BOOL", 1},    DtypeInfo{Dtype::u8, "U8", 1},
    DtypeInfo{Dtype::i8, "I8", 1},           DtypeInfo{Dtype::f8_e4m3, "F8_E4M3", 1},
    DtypeInfo{Dtype::f8_e5m2, "F8_E5M2", 1}, DtypeInfo{Dtype::f8_e8m0, "F8_E8M0", 1},
    DtypeInfo{Dtype::i16, "I16", 2},         DtypeInfo{Dtype::u16, "U16", 2},
    DtypeInfo{Dtype::f16, "F16", 2},         DtypeInfo{Dtype::bf16, "BF16", 2},
    DtypeInfo{Dtype::i32, "I32", 4},         DtypeInfo{Dtype::u32, "U32", 4},
    DtypeInfo{Dtype::f32, "F32", 4},         DtypeInfo{Dtype::c64, "C64", 8},
    DtypeInfo{Dtype::f64, "F64", 8},         DtypeInfo{Dtype::i64, "I64", 8},
    DtypeInfo{Dtype::u64, "U64", 8},
};
static_assert([] {
  for (std::size_t i = 0; i < kDtypes.size(); ++i)
    if (static_cast<std::size_t>(kDtypes[i].dtype) != i) return false;
  return true;
}());

template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);

template <class T>
concept StoredFloat = OneOf<T, double, float, half, bfloat16>;
template <class T>
concept StoredInteger = OneOf<T, signed char, short, int, long, long long, unsigned char,
                              unsigned short, unsigned, unsigned long, unsigned long long>;

}  // namespace detail

/// The C++ types that tensors of a file are made from and read into.
template <class T>
concept StorableNumber = detail::StoredFloat<T> || detail::StoredInteger<T>;
template <class T>
concept Storable = StorableNumber<T> || std::same_as<T, bool>;

/// The name in the file: "F32", "BF16", ...
constexpr const char* dtype_name(Dtype dtype) {
  return detail::kDtypes[static_cast<std::size_t>(dtype)].name;
}
/// Bytes of one element.
constexpr std::size_t dtype_bytes(Dtype dtype) {
  return detail::kDtypes[static_cast<std::size_t>(dtype)].bytes;
}
/// The other way round; none for a name that is not in the table.
constexpr std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (const auto& info : detail::kDtypes)
    if (info.name == name) return info.dtype;
  return std::nullopt;
}

/// The type in a file that holds T bit for bit.
template <Storable T>
constexpr Dtype dtype_of() {
  if constexpr (std::same_as<T, bool>)
    return Dtype::boolean;
  else if constexpr (std::same_as<T, double>)
    return Dtype::f64;
  else if constexpr (std::same_as<T, float>)
    return Dtype::f32;
  else if constexpr (std::same_as<T, half>)
    return Dtype::f16;
  else if constexpr (std::same_as<T, bfloat16>)
    return Dtype::bf16;
  else if constexpr (sizeof(T) == 1)
    return std::is_signed_v<T> ? Dtype::i8 : Dtype::u8;
  else if constexpr (sizeof(T) == 2)
    return std::is_signed_v<T> ? Dtype::i16 : Dtype::u16;
  else if constexpr (sizeof(T) == 4)
    return std::is_signed_v<T> ? Dtype::i32 : Dtype::u32;
  else
    return std::is_signed_v<T> ? Dtype::i64 : Dtype::u64;
}

namespace detail {

constexpr bool is_float(Dtype dtype) {
  return dtype == Dtype::f64 || dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16;
}

/// What convert() made of the bytes: all of it, or why not.
enum class Converted { yes, wrong_kind, out_of_range };

template <class From, class To>
Converted convert_elements(std::span<const std::byte> bytes, std::span<To> out) {
  if constexpr (std::same_as<From, To>) {
    if (!out.empty()) std::memcpy(static_cast<void*>(out.data()), bytes.data(), bytes.size());
    return Converted::yes;
  } else {
    for (std::size_t i = 0; i < out.size(); ++i) {
      From value;  // the file owes us no alignment
      std::memcpy(static_cast<void*>(&value), bytes.data() + i * sizeof(From), sizeof(From));
      if constexpr (StoredInteger<From>) {
        if constexpr (std::same_as<To, bool>) {
          if (value > 1) return Converted::out_of_range;
          out[i] = value != 0;
        } else {
          if (!std::in_range<To>(value)) return Converted::out_of_range;
          out[i] = static_cast<To>(value);
        }
      } else {
        out[i] = scalar_cast<To>(value);
      }
    }
    return Converted::yes;
  }
}

/// bytes.size() = out.size() * dtype_bytes(dtype). Floats become floats, integers integers that can
/// hold them, booleans bool.
template <Storable To>
Converted convert(Dtype dtype, std::span<const std::byte> bytes, std::span<To> out) {
  if constexpr (StoredFloat<To>) {
    switch (dtype) {
      case Dtype::f64: return convert_elements<double>(bytes, out);
      case Dtype::f32: return convert_elements<float>(bytes, out);
      case Dtype::f16: return convert_elements<half>(bytes, out);
      case Dtype::bf16: return convert_elements<bfloat16>(bytes, out);
      default: return Converted::wrong_kind;
    }
  } else if constexpr (StoredInteger<To>) {
    switch (dtype) {
      case Dtype::i64: return convert_elements<std::int64_t>(bytes, out);
      case Dtype::i32: return convert_elements<std::int32_t>(bytes, out);
      case Dtype::i16: return convert_elements<std::int16_t>(bytes, out);
      case Dtype::i8: return convert_elements<std::int8_t>(bytes, out);
      case Dtype::u64: return convert_elements<std::uint64_t>(bytes, out);
      case Dtype::u32: return convert_elements<std::uint32_t>(bytes, out);
      case Dtype::u16: return convert_elements<std::uint16_t>(bytes, out);
      case Dtype::u8: return convert_elements<std::uint8_t>(bytes, out);
      default: return Converted::wrong_kind;
    }
  } else {
    return dtype == Dtype::boolean ? convert_elements<std::uint8_t>(bytes, out)
                                   : Converted::wrong_kind;
  }
}

/// What convert<To>() reads, in words.
template <Storable To>
constexpr const char* readable_dtypes() {
  if constexpr (StoredFloat<To>)
    return "F64, F32, F16 or BF16";
  else if constexpr (StoredInteger<To>)
    return "an integer type";
  else
    return "BOOL";
}

}  // namespace detail

}  // namespace retnet::inline RETNET_ABI
