// SPDX-License-Identifier: MIT
#include "retnet/core/tensor.hpp"

#include <gtest/gtest.h>

namespace retnet {
namespace {

template <class S>
class ToRowMajorTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ToRowMajorTest, Scalars);

TYPED_TEST(ToRowMajorTest, KeepsEveryElementInItsPlace) {
  Eigen::Tensor<TypeParam, 3, Eigen::ColMajor> x(2, 3, 5);
  x.setRandom();
  const Tensor3<TypeParam> y = to_row_major(x);
  ASSERT_EQ(y.dimension(0), 2);
  ASSERT_EQ(y.dimension(1), 3);
  ASSERT_EQ(y.dimension(2), 5);
  for (Eigen::Index b = 0; b < 2; ++b)
    for (Eigen::Index t = 0; t < 3; ++t)
      for (Eigen::Index c = 0; c < 5; ++c) {
        EXPECT_EQ(y(b, t, c), x(b, t, c));
        EXPECT_EQ(y.data()[(b * 3 + t) * 5 + c], x(b, t, c));
      }
}

TYPED_TEST(ToRowMajorTest, WorksForMatrices) {
  Eigen::Tensor<TypeParam, 2, Eigen::ColMajor> x(4, 3);
  x.setRandom();
  const auto y = to_row_major(x);
  for (Eigen::Index r = 0; r < 4; ++r)
    for (Eigen::Index c = 0; c < 3; ++c) EXPECT_EQ(y.data()[r * 3 + c], x(r, c));
}

}  // namespace
}  // namespace retnet
