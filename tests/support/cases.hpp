// SPDX-License-Identifier: MIT
// The one table of shapes, for tests, gradient checks and benchmarks. Sizes sit on, below and above
// the widths of vectors, tiles and blocks.
#pragma once

#include <array>
#include <ostream>

#include "retnet/core/scalar.hpp"

namespace retnet::test {

/// The letters are those of retnet/fwd.hpp.
struct RetentionShape {
  Index batch;
  Index tokens;
  Index heads;
  Index kv_heads;
  Index key_dim;
  Index value_dim;

  Index rows() const { return batch * tokens; }
  Index states() const { return batch * heads * key_dim * value_dim; }
  friend std::ostream& operator<<(std::ostream& out, const RetentionShape& s) {
    return out << "B" << s.batch << "_T" << s.tokens << "_H" << s.heads << "_Hk" << s.kv_heads
               << "_Dk" << s.key_dim << "_Dv" << s.value_dim;
  }
};

inline constexpr std::array<Index, 6> kTokens{1, 2, 63, 64, 65, 257};
inline constexpr std::array<Index, 5> kKeyDims{2, 16, 20, 64, 160};
inline constexpr std::array<Index, 4> kValueDims{3, 43, 64, 432};

/// Chunk sizes for T tokens: ragged, whole, and larger than the sequence.
inline constexpr std::array<Index, 5> chunks(Index tokens) { return {1, 3, 16, 64, tokens}; }

/// Every T with every Dk once, every Dv with every Dk at least once, heads 1 to 4, shared key
/// heads. The largest products of sizes are left out: they cost most and find no more.
inline constexpr std::array<RetentionShape, 30> kRetentionShapes{{
    {1, 1, 1, 1, 2, 3},    {2, 1, 2, 1, 16, 43},    {3, 1, 3, 3, 20, 64},   {1, 1, 4, 2, 64, 432},
    {2, 1, 4, 1, 160, 3},  {2, 2, 2, 2, 2, 43},     {1, 2, 4, 4, 16, 64},   {3, 2, 1, 1, 20, 432},
    {1, 2, 3, 1, 64, 3},   {1, 2, 2, 1, 160, 43},   {1, 63, 4, 2, 2, 64},   {1, 63, 1, 1, 16, 432},
    {2, 63, 2, 2, 20, 3},  {1, 63, 2, 1, 64, 43},   {1, 63, 1, 1, 160, 64}, {1, 64, 1, 1, 2, 432},
    {2, 64, 3, 3, 16, 3},  {1, 64, 4, 2, 20, 43},   {1, 64, 2, 2, 64, 64},  {1, 64, 1, 1, 160, 432},
    {3, 65, 2, 1, 2, 3},   {1, 65, 3, 1, 16, 43},   {1, 65, 4, 4, 20, 64},  {1, 65, 1, 1, 64, 432},
    {2, 65, 1, 1, 160, 3}, {2, 257, 2, 2, 2, 43},   {1, 257, 4, 1, 16, 64}, {1, 257, 1, 1, 20, 432},
    {1, 257, 2, 2, 64, 3}, {1, 257, 1, 1, 160, 43},
}};

/// Small shapes for what evaluates an operator many times: finite differences.
inline constexpr std::array<RetentionShape, 4> kGradientShapes{{
    {1, 1, 1, 1, 2, 3},
    {2, 5, 2, 1, 2, 3},
    {1, 9, 4, 2, 4, 5},
    {2, 7, 3, 3, 3, 2},
}};

/// Sizes of M, N, K around the tiles of the matrix product: 6 or 12 rows, 8 to 32 columns, blocks
/// of 120 rows and of 256 in depth.
inline constexpr std::array<Index, 14> kProductSizes{1,  2,  11,  12,  13,  31,  32,
                                                     33, 64, 120, 121, 256, 257, 300};

/// Matrices [rows, cols] for ops that work row by row.
struct RowShape {
  Index rows;
  Index cols;
  friend std::ostream& operator<<(std::ostream& out, const RowShape& s) {
    return out << "R" << s.rows << "_C" << s.cols;
  }
};
inline constexpr std::array<RowShape, 8> kRowShapes{
    {{1, 1}, {1, 7}, {2, 16}, {3, 33}, {63, 20}, {64, 64}, {65, 43}, {130, 129}}};

}  // namespace retnet::test
