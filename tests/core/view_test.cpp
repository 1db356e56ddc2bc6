// SPDX-License-Identifier: MIT
#include "retnet/core/view.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "retnet/core/tensor.hpp"
#include "support/message_of.hpp"

namespace retnet {
namespace {

using test::message_of;

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColumnMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
using ColumnTensor = Eigen::Tensor<float, 3, Eigen::ColMajor>;
using Fixed = Eigen::TensorFixedSize<float, Eigen::Sizes<2, 3, 4>, Eigen::RowMajor>;
template <class S>
using Map3 = Eigen::TensorMap<Eigen::Tensor<S, 3, Eigen::RowMajor>>;
using ConstMap3 = Eigen::TensorMap<const Tensor3<float>>;
using Dims3 = std::array<Index, 3>;

template <class X>
constexpr bool kReads = std::is_convertible_v<X, ConstView<float, 3>>;
template <class X>
constexpr bool kWrites = std::is_convertible_v<X, View<float, 3>>;

// What may be written: lvalues that own or borrow mutable numbers.
static_assert(kWrites<Tensor3<float>&> && kWrites<Map3<float>&> && kWrites<Fixed&>);
static_assert(kWrites<RowMatrix&> && kWrites<Eigen::Map<RowMatrix>&>);
static_assert(!kWrites<const Tensor3<float>&> && !kWrites<Tensor3<float>>);
static_assert(!kWrites<ConstMap3&> && !kWrites<const Fixed&>);
static_assert(!kWrites<const RowMatrix&> && !kWrites<RowMatrix>);
static_assert(!kWrites<Eigen::Map<const RowMatrix>&>);
static_assert(!kWrites<ConstView<float, 3>> && !kWrites<ConstView<float, 3>&>);

// What may be read: all of these, temporaries too.
static_assert(kReads<Tensor3<float>&> && kReads<const Tensor3<float>&> && kReads<Tensor3<float>>);
static_assert(kReads<ConstMap3&> && kReads<const Map3<float>&> && kReads<const Fixed&>);
static_assert(kReads<const RowMatrix&> && kReads<Eigen::Map<const RowMatrix>>);
static_assert(kReads<View<float, 3>> && kReads<ConstView<float, 3>>);

// What is none of the library's business: scalar, layout, rank, expressions.
static_assert(!kReads<Tensor3<double>&> && !kWrites<Tensor3<double>&>);
static_assert(!kReads<ColumnTensor&> && !kWrites<ColumnTensor&>);
static_assert(!kReads<Eigen::TensorMap<ColumnTensor>&>);
static_assert(!kReads<ColumnMatrix&> && !kWrites<ColumnMatrix&>);
static_assert(!kReads<Eigen::Tensor<float, 2, Eigen::RowMajor>&>);
static_assert(!kReads<Eigen::Tensor<float, 4, Eigen::RowMajor>&>);
static_assert(!kReads<decltype(std::declval<Tensor3<float>&>() * 2.0F)>);
static_assert(!kReads<decltype(std::declval<RowMatrix&>() * std::declval<RowMatrix&>())>);
static_assert(!kReads<decltype(std::declval<RowMatrix&>().transpose())>);
static_assert(!kReads<float*> && !kReads<View<float, 2>>);

template <class S>
class ViewTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ViewTest, Scalars);

TYPED_TEST(ViewTest, SeesTheTensorItWasMadeFrom) {
  using S = TypeParam;
  Tensor3<S> x(2, 3, 4);
  x.setRandom();
  const View<S, 3> mutable_view = x;
  const ConstView<S, 3> view = std::as_const(x);
  EXPECT_EQ(view.data(), x.data());
  EXPECT_EQ(view.dims(), (Dims3{2, 3, 4}));
  EXPECT_EQ(view.size(), 24);
  EXPECT_EQ(view.shape_text(), "[2,3,4]");
  EXPECT_EQ(view.data()[(1 * 3 + 2) * 4 + 1], x(1, 2, 1));
  mutable_view.data()[0] = S(7);
  EXPECT_EQ(x(0, 0, 0), S(7));
  EXPECT_EQ((ConstView<S, 3>(mutable_view).data()), x.data());
}

TYPED_TEST(ViewTest, TakesMapsAndFixedSizes) {
  using S = TypeParam;
  std::array<S, 24> memory{};
  Map3<S> map(memory.data(), 2, 3, 4);
  const Eigen::TensorMap<const Tensor3<S>> const_map(memory.data(), 4, 3, 2);
  Eigen::TensorFixedSize<S, Eigen::Sizes<2, 3, 4>, Eigen::RowMajor> fixed;
  EXPECT_EQ((View<S, 3>(map).data()), memory.data());
  EXPECT_EQ((ConstView<S, 3>(const_map).dims()), (Dims3{4, 3, 2}));
  EXPECT_EQ((View<S, 3>(fixed).data()), fixed.data());
  EXPECT_EQ((View<S, 3>(fixed).dims()), (Dims3{2, 3, 4}));
}

TYPED_TEST(ViewTest, TakesAMatrixAsOneSequence) {
  using S = TypeParam;
  using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Matrix x = Matrix::Random(5, 3);
  const Eigen::Map<const Matrix> map(x.data(), 3, 5);
  EXPECT_EQ((View<S, 3>(x).dims()), (Dims3{1, 5, 3}));
  EXPECT_EQ((View<S, 2>(x).dims()), (std::array<Index, 2>{5, 3}));
  EXPECT_EQ((ConstView<S, 3>(map).dims()), (Dims3{1, 3, 5}));
  EXPECT_EQ((ConstView<S, 3>(map).data()), x.data());
}

TYPED_TEST(ViewTest, TakesVectorsAsRowsOrColumns) {
  using S = TypeParam;
  Eigen::Matrix<S, 1, Eigen::Dynamic> row(4);
  Eigen::Matrix<S, Eigen::Dynamic, 1> column(4);
  EXPECT_EQ((View<S, 3>(row).dims()), (Dims3{1, 1, 4}));
  EXPECT_EQ((View<S, 3>(column).dims()), (Dims3{1, 4, 1}));
}

TEST(View, RejectsRowsThatAreNotContiguous) {
  const std::array<float, 24> memory{};
  using Strided = Eigen::Map<const RowMatrix, 0, Eigen::OuterStride<>>;
  const Strided gaps(memory.data(), 3, 4, Eigen::OuterStride<>(6));
  const std::string message = message_of([&] { ConstView<float, 3>{gaps}; });
  EXPECT_NE(message.find("[View::View]"), std::string::npos) << message;
  EXPECT_NE(message.find("6 elements apart"), std::string::npos) << message;
  EXPECT_NE(message.find("expected contiguous rows of 4"), std::string::npos) << message;
  EXPECT_THROW((ConstView<float, 2>{gaps}), std::invalid_argument);
  const RowMatrix x = RowMatrix::Zero(4, 4);
  const auto block = x.leftCols(2);
  EXPECT_THROW((ConstView<float, 3>{block}), std::invalid_argument);
  const auto rows = x.middleRows(1, 2);
  EXPECT_EQ((ConstView<float, 3>(rows).data()), x.data() + 4);
}

TEST(View, RejectsElementsThatAreNotContiguous) {
  const std::array<float, 24> memory{};
  using Strided = Eigen::Map<const RowMatrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  const Strided every_second(memory.data(), 3, 4, Eigen::Stride<-1, -1>(8, 2));
  const Strided one_row(memory.data(), 1, 4, Eigen::Stride<-1, -1>(4, 2));
  const Strided disguised(memory.data(), 3, 4, Eigen::Stride<-1, -1>(4, 2));
  EXPECT_THROW((ConstView<float, 3>{every_second}), std::invalid_argument);
  EXPECT_THROW((ConstView<float, 3>{one_row}), std::invalid_argument);
  EXPECT_THROW((ConstView<float, 3>{disguised}), std::invalid_argument);
}

TEST(View, IsEmptyByDefault) {
  const View<float, 3> none;
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.size(), 0);
}

}  // namespace
}  // namespace retnet
