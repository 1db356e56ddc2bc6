// SPDX-License-Identifier: MIT
// A header that the format forbids is refused: the message has file, tensor, found and expected.
#include "io/support.hpp"
#include "retnet/io/safetensors.hpp"

namespace retnet {
namespace {

using io_test::expect_error;
using io_test::file_of;

struct Case {
  const char* name;
  std::string header;
  std::size_t data;
  std::vector<std::string_view> parts;
};

std::string tensor(const std::string& fields) { return "{\"x\":{" + fields + "}}"; }

class BadHeader : public testing::TestWithParam<Case> {};

TEST_P(BadHeader, IsRefusedWithItsReason) {
  const auto& c = GetParam();
  const auto bytes = file_of(c.header, c.data);
  for (const auto part : c.parts)
    expect_error<std::invalid_argument>(
        [&] {
          SafetensorsFile{bytes, "bad.safetensors"};
        },
        {"[SafetensorsFile::SafetensorsFile]", "bad.safetensors", part});
}

const std::string kOne = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

INSTANTIATE_TEST_SUITE_P(
    Layout, BadHeader,
    testing::Values(
        Case{"wrong_size",
             tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
             4,
             {"x: F32 [2] in 4 bytes, expected 8"}},
        Case{"wrong_dtype",
             tensor(R"("dtype":"F64","shape":[2],"data_offsets":[0,8])"),
             8,
             {"x: F64 [2] in 8 bytes, expected 16"}},
        Case{"end_before_begin",
             tensor(R"("dtype":"F32","shape":[0],"data_offsets":[8,0])"),
             8,
             {"x: data_offsets are [8,0]"}},
        Case{"beyond_the_end",
             tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"),
             7,
             {"x: data_offsets are [0,8]", "within the 7 bytes"}},
        Case{"far_beyond",
             tensor(R"("dtype":"U8","shape":[1],)"
                    R"("data_offsets":[9223372036854775806,9223372036854775807])"),
             8,
             {"within the 8 bytes"}},
        Case{"product_overflows",
             tensor(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8])"),
             8,
             {"x: F32 [4294967296,4294967296,4] has more bytes than can be counted"}},
        Case{"bytes_overflow",
             tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"),
             0,
             {"more bytes than can be counted"}},
        Case{"hole_before",
             tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),
             8,
             {"x: data_offsets are [4,8], which leaves a hole"}},
        Case{"hole_behind",
             tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"),
             8,
             {"the tensors cover 4 of 8 bytes"}},
        Case{"overlap",
             "{" + kOne + R"(,"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
             8,
             {"y: data_offsets are [4,8], which overlaps"}},
        Case{"same_bytes",
             "{" + kOne + R"(,"y":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
             8,
             {"which overlaps"}},
        Case{"same_name",
             "{" + kOne + R"(,"x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
             16,
             {"x: the tensor is given twice"}}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Fields, BadHeader,
    testing::Values(
        Case{"unknown_dtype",
             tensor(R"("dtype":"F7","shape":[1],"data_offsets":[0,1])"),
             1,
             {"x dtype: \"F7\", expected a known dtype"}},
        Case{"dtype_is_number",
             tensor(R"("dtype":7,"shape":[1],"data_offsets":[0,1])"),
             1,
             {"x dtype: 7"}},
        Case{"negative",
             tensor(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"),
             1,
             {"x shape: -1, expected integers"}},
        Case{"minus_zero",
             tensor(R"("dtype":"U8","shape":[-0],"data_offsets":[0,1])"),
             1,
             {"x shape"}},
        Case{"fraction",
             tensor(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"),
             1,
             {"x shape: 1.0"}},
        Case{"exponent",
             tensor(R"("dtype":"U8","shape":[1e0],"data_offsets":[0,1])"),
             1,
             {"x shape: 1e0"}},
        Case{"beyond_63_bits",
             tensor(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1])"),
             1,
             {"x shape: 9223372036854775808"}},
        Case{"beyond_64_bits",
             tensor(R"("dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1])"),
             1,
             {"x shape: 18446744073709551616"}},
        Case{"shape_is_number",
             tensor(R"("dtype":"U8","shape":1,"data_offsets":[0,1])"),
             1,
             {"x shape: 1, expected an array"}},
        Case{"shape_is_nested",
             tensor(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"),
             1,
             {"x shape: an array"}},
        Case{"one_offset",
             tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0])"),
             1,
             {"data_offsets has 1 entries, expected 2"}},
        Case{"three_offsets",
             tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,1])"),
             1,
             {"data_offsets has 3 entries"}},
        Case{"missing_field", tensor(R"("dtype":"U8","shape":[1])"), 1, {"x: fields are missing"}},
        Case{"unknown_field",
             tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"scale":2)"),
             1,
             {"x scale: unknown field"}},
        Case{"field_twice",
             tensor(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])"),
             1,
             {"x dtype: the field is given twice"}},
        Case{"tensor_is_null", R"({"x":null})", 0, {"x: null, expected an object of dtype"}},
        Case{"tensor_is_array", R"({"x":[1]})", 0, {"x: an array"}},
        Case{"metadata_is_null", R"({"__metadata__":null})", 0, {"__metadata__: null"}},
        Case{"metadata_is_number",
             R"({"__metadata__":{"a":1}})",
             0,
             {"__metadata__ a: 1, expected a string"}},
        Case{
            "metadata_is_nested", R"({"__metadata__":{"a":{}}})", 0, {"__metadata__ a: an object"}},
        Case{"metadata_twice",
             R"({"__metadata__":{},"__metadata__":{}})",
             0,
             {"__metadata__: the key is given twice"}},
        Case{"metadata_key_twice",
             R"({"__metadata__":{"a":"1","a":"1"}})",
             0,
             {"__metadata__ a: the key is given twice"}}),
    [](const auto& c) { return c.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Json, BadHeader,
    testing::Values(Case{"empty", "", 0, {"does not begin with '{'"}},
                    Case{"array", "[]", 0, {"does not begin with '{'"}},
                    Case{"space_first", " {}", 0, {"does not begin with '{'"}},
                    Case{"byte_order_mark", "\xEF\xBB\xBF{}", 0, {"does not begin with '{'"}},
                    Case{"zero_bytes_behind", std::string("{}\0\0", 4), 0, {"zero byte"}},
                    Case{"text_behind", "{} x", 0, {"not valid JSON"}},
                    Case{"two_objects", "{}{}", 0, {"not valid JSON"}},
                    Case{"unfinished", "{", 0, {"not valid JSON at its byte"}},
                    Case{"trailing_comma", "{" + kOne + ",}", 8, {"not valid JSON"}},
                    Case{"bad_utf8", "{\"\xC3\x28\":{}}", 0, {"not valid JSON"}},
                    Case{"lone_surrogate", R"({"\ud800":{}})", 0, {"not valid JSON"}},
                    Case{"deep", "{\"x\":" + std::string(200'000, '['), 0, {"x: an array"}},
                    Case{"deep_objects",
                         "{\"x\":{\"shape\":" + std::string(100'000, '{'),
                         0,
                         {"x shape: an object"}},
                    Case{"comment", "{/* */}", 0, {"not valid JSON"}}),
    [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace retnet
