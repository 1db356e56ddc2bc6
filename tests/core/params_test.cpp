// SPDX-License-Identifier: MIT
#include "retnet/core/params.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "support/compare.hpp"

namespace retnet {
namespace {

struct Example {
  ParamLayout layout;
  Param zeros = layout.add("zeros", 1, 3, {Init::Kind::zeros}, false);
  Param ones = layout.add("ones", 1, 7, {Init::Kind::ones}, false);
  Param normal = layout.add("normal", 100, 50, {Init::Kind::normal, 0.02});
  Param xavier = layout.add("xavier", 60, 40, {Init::Kind::xavier_uniform, 0.5});
  Param kaiming = layout.add("kaiming", 30, 64, {Init::Kind::kaiming_uniform});
};

TEST(ParamLayout, AlignsEveryPlaceInEveryStorageType) {
  const Example e;
  const ParamBuffer<float> f(e.layout);
  const ParamBuffer<double> d(e.layout);
  const ParamBuffer<bfloat16> b(e.layout);
  for (const auto& entry : e.layout.entries()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(f[entry.place].data) % kAlignment, 0U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(d[entry.place].data) % kAlignment, 0U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b[entry.place].data) % kAlignment, 0U);
  }
}

TEST(ParamLayout, PlacesDoNotOverlap) {
  const Example e;
  Index end = 0;
  for (const auto& entry : e.layout.entries()) {
    EXPECT_GE(entry.place.offset, end);
    end = entry.place.offset + entry.place.size();
  }
  EXPECT_LE(end, e.layout.size());
  EXPECT_EQ(e.layout.count(), 3 + 7 + 100 * 50 + 60 * 40 + 30 * 64);
}

TEST(ParamLayout, FindsByName) {
  const Example e;
  const ParamEntry* xavier = e.layout.find("xavier");
  ASSERT_NE(xavier, nullptr);
  EXPECT_EQ(xavier->place.rows, 60);
  EXPECT_EQ(xavier->place.cols, 40);
  EXPECT_TRUE(xavier->decays);
  EXPECT_FALSE(e.layout.find("ones")->decays);
  EXPECT_EQ(e.layout.find("absent"), nullptr);
}

TEST(ParamLayout, CopiesFindTheirOwn) {
  ParamLayout copy;
  {
    const Example e;
    copy = e.layout;
    const ParamLayout moved = ParamLayout(e.layout);
    EXPECT_EQ(moved.find("ones"), &moved.entries()[1]);
  }
  copy.add("more", 1, 1, {});
  for (const ParamEntry& entry : copy.entries()) EXPECT_EQ(copy.find(entry.name), &entry);
}

TEST(ParamLayout, RejectsNamesGivenTwiceAndEmptyShapes) {
  ParamLayout layout;
  layout.add("w", 2, 2, {});
  EXPECT_THROW(layout.add("w", 2, 2, {}), std::invalid_argument);
  EXPECT_THROW(layout.add("none", 0, 2, {}), std::invalid_argument);
  EXPECT_THROW(layout.add("less", 2, -1, {}), std::invalid_argument);
  EXPECT_EQ(layout.entries().size(), 1U);
}

TEST(ParamBuffer, StartsAtZeroGapsIncluded) {
  const Example e;
  const ParamBuffer<float> p(e.layout);
  ASSERT_EQ(static_cast<Index>(p.flat().size()), e.layout.size());
  for (const float v : p.flat()) EXPECT_EQ(v, 0.0F);
}

TEST(ParamBuffer, AnAbsentParameterIsAnEmptyWindow) {
  const Example e;
  const ParamBuffer<float> p(e.layout);
  EXPECT_TRUE(p[Param{}].empty());
  EXPECT_FALSE(p[e.ones].empty());
  const ParamRef<const float> ref = ParamBuffer<float>(p).ref();
  EXPECT_TRUE(ref);
  EXPECT_FALSE(ParamRef<float>());
}

TEST(ParamBuffer, ACopyIsIndependent) {
  const Example e;
  ParamBuffer<float> p(e.layout);
  ParamBuffer<float> copy = p;
  copy[e.ones](0, 0) = 5.0F;
  EXPECT_EQ(p[e.ones](0, 0), 0.0F);
}

TEST(Initialize, FollowsTheRules) {
  const Example e;
  ParamBuffer<double> p(e.layout);
  initialize(p, e.layout, Seed{3});
  for (Index j = 0; j < 3; ++j) EXPECT_EQ(p[e.zeros](0, j), 0.0);
  for (Index j = 0; j < 7; ++j) EXPECT_EQ(p[e.ones](0, j), 1.0);

  const auto moments = [&](Param place) {
    double sum = 0.0, squares = 0.0, largest = 0.0;
    for (Index i = 0; i < place.size(); ++i) {
      const double v = p[place].data[i];
      sum += v, squares += v * v, largest = std::fmax(largest, std::fabs(v));
    }
    const auto n = static_cast<double>(place.size());
    return std::array{sum / n, std::sqrt(squares / n), largest};
  };
  const auto normal = moments(e.normal);
  EXPECT_NEAR(normal[0], 0.0, 0.02 * 4.0 / std::sqrt(5000.0));
  EXPECT_NEAR(normal[1], 0.02, 0.02 * 0.05);
  const double xavier_bound = 0.5 * std::sqrt(6.0 / (60.0 + 40.0));
  const auto xavier = moments(e.xavier);
  EXPECT_LE(xavier[2], xavier_bound);
  EXPECT_GT(xavier[2], 0.99 * xavier_bound);
  EXPECT_NEAR(xavier[1], xavier_bound / std::sqrt(3.0), 0.05 * xavier_bound);
  const auto kaiming = moments(e.kaiming);
  EXPECT_LE(kaiming[2], 1.0 / std::sqrt(64.0));
  EXPECT_GT(kaiming[2], 0.99 / std::sqrt(64.0));
}

TEST(Initialize, DependsOnTheSeedAlone) {
  const Example e;
  ParamBuffer<float> a(e.layout), b(e.layout), other(e.layout);
  initialize(a, e.layout, Seed{3});
  initialize(b, e.layout, Seed{3});
  initialize(other, e.layout, Seed{4});
  EXPECT_TRUE(test::same_bits(std::span<const float>(a.flat()), std::span<const float>(b.flat())));
  EXPECT_FALSE(
      test::same_bits(std::span<const float>(a.flat()), std::span<const float>(other.flat())));
}

TEST(Initialize, IsTheSameInEveryScalar) {
  const Example e;
  ParamBuffer<float> f(e.layout);
  ParamBuffer<double> d(e.layout);
  ParamBuffer<bfloat16> b(e.layout);
  initialize(f, e.layout, Seed{3});
  initialize(d, e.layout, Seed{3});
  initialize(b, e.layout, Seed{3});
  for (std::size_t i = 0; i < d.flat().size(); ++i) {
    EXPECT_EQ(f.flat()[i], static_cast<float>(d.flat()[i]));
    EXPECT_EQ(b.flat()[i], static_cast<bfloat16>(static_cast<float>(d.flat()[i])));
  }
}

TEST(ParamBuffer, CastRoundsOnce) {
  const Example e;
  ParamBuffer<float> f(e.layout);
  initialize(f, e.layout, Seed{3});
  const ParamBuffer<bfloat16> b = f.cast<bfloat16>();
  const ParamBuffer<double> d = f.cast<double>();
  const ParamBuffer<float> back = b.cast<float>();
  ASSERT_EQ(b.flat().size(), f.flat().size());
  for (std::size_t i = 0; i < f.flat().size(); ++i) {
    EXPECT_EQ(d.flat()[i], static_cast<double>(f.flat()[i]));
    EXPECT_EQ(back.flat()[i], static_cast<float>(b.flat()[i]));
    EXPECT_NEAR(back.flat()[i], f.flat()[i], std::fabs(f.flat()[i]) * 0x1p-8F);
  }
}

// Two parameters out of order, with a gap, as a file may have them.
TEST(ParamLayout, PutsParametersWhereItIsTold) {
  ParamLayout placed([](const std::string& name, Index rows, Index cols) {
    EXPECT_EQ(rows * cols, 6);
    return name == "a" ? Index{10} : Index{1};
  });
  const Param a = placed.add("a", 2, 3, {}), b = placed.add("b", 1, 6, {});
  EXPECT_EQ(a.offset, 10);
  EXPECT_EQ(b.offset, 1);
  EXPECT_EQ(placed.size(), 16);
  EXPECT_EQ(placed.count(), 12);

  ParamLayout again = placed.like();
  EXPECT_TRUE(again.entries().empty());
  EXPECT_EQ(again.size(), 16);
  EXPECT_EQ(again.add("b", 1, 6, {}).offset, 1);
  EXPECT_EQ(again.add("a", 2, 3, {}).offset, 10);
  EXPECT_THROW(again.add("c", 1, 1, {}), std::out_of_range);
}

TEST(ParamBuffer, BorrowsAndStaysReadOnly) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1.0F, 2.0F, 3.0F});
  const std::weak_ptr<std::vector<float>> watch = owner;
  const float* data = owner->data();
  {
    ParamBuffer<float> borrowed(std::span<const float>(*owner), owner);
    owner.reset();
    const ParamBuffer<float> copy = borrowed;
    EXPECT_TRUE(copy.borrows());
    EXPECT_EQ(copy.flat().data(), data);
    EXPECT_EQ((copy[Param{1, 1, 2}](0, 1)), 3.0F);
    EXPECT_THROW((void)borrowed.flat(), std::invalid_argument);
    EXPECT_THROW(borrowed.zero(), std::invalid_argument);
    EXPECT_THROW((void)borrowed.ref(), std::invalid_argument);
    ParamBuffer<float> own = borrowed.cast<float>();
    EXPECT_FALSE(own.borrows());
    own.flat()[0] = 7.0F;
    EXPECT_EQ(copy.flat()[0], 1.0F);
    EXPECT_FALSE(watch.expired());
  }
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace retnet
