// SPDX-License-Identifier: MIT
// A layer that has run once allocates nothing when it runs again.

#include <gtest/gtest.h>

#include "layers/variants.hpp"
#include "retnet/layers/multi_scale_retention.hpp"
#include "retnet/layers/retnet_block.hpp"
#include "support/count_allocations.hpp"

namespace retnet::test {
namespace {

// Else a test that always counts zero would pass.
TEST(Allocations, AreCounted) {
  EXPECT_GE(count_allocations([] { Buffer<float> x(100); }), 1);
  EXPECT_GE(count_allocations([] { const std::vector<int> x(100, 1); }), 1);
}

template <class Layer>
void expect_none_when_warm(const Layer& layer, Index width, const std::string& name) {
  for (const int threads : {1, 2}) {
    Cpu ctx(threads);
    for (const auto& [form, length] :
         {std::pair{Form::recurrent(), Index{1}}, std::pair{Form::recurrent(), Index{4}},
          std::pair{Form::chunkwise(16), Index{40}}, std::pair{Form::parallel(), Index{40}}}) {
      auto state = layer.initial_state(2);
      const auto x = random_normal<float>(2 * length * width, 1);
      Buffer<float> y(x.size());
      const std::array<Index, 3> dims{2, length, width};
      const auto step = [&, f = form] {
        layer.forward(ctx, f, ConstView<float, 3>(x.data(), dims), &state,
                      View<float, 3>(y.data(), dims));
      };
      step();
      // Which of two threads gets a task is up to chance, so each may warm up late, but only once.
      int quiet = 0;
      for (int call = 0; call < (threads == 1 ? 20 : 5000) && quiet < 20; ++call)
        quiet = count_allocations(step) == 0 ? quiet + 1 : 0;
      EXPECT_EQ(quiet, 20) << name << " " << form.name() << " T" << length << " threads "
                           << threads;
    }
  }
}

TEST(Allocations, NoneInAWarmLayer) {
  for (const auto& v : some_variants())
    expect_none_when_warm(random_layer<MultiScaleRetention<float>>(v.config), v.config.d_model,
                          v.name);
}

TEST(Allocations, NoneInAWarmBlock) {
  for (const auto& v : some_variants()) {
    const BlockConfig config{.mixer = v.config, .feed_forward = {.d_model = v.config.d_model}};
    expect_none_when_warm(RetNetBlock<float>(config), v.config.d_model, v.name);
  }
}

}  // namespace
}  // namespace retnet::test
