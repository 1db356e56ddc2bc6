// One include, one layer, one set of weights: three ways to run it, one answer.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "retnet/retnet.hpp"

using Tensor = Eigen::Tensor<float, 3, Eigen::RowMajor>;

/// Largest difference between `part` and the tokens of `whole` from `first` on, as a fraction of
/// the largest value. NaN stays NaN.
double difference(const Tensor& part, const Tensor& whole, Eigen::Index first = 0) {
  float largest = 0, size = 0;
  for (Eigen::Index b = 0; b < part.dimension(0); ++b)
    for (Eigen::Index t = 0; t < part.dimension(1); ++t)
      for (Eigen::Index c = 0; c < part.dimension(2); ++c) {
        const float d = std::abs(part(b, t, c) - whole(b, first + t, c));
        if (d > largest || std::isnan(d)) largest = d;
        size = std::max(size, std::abs(whole(b, first + t, c)));
      }
  return static_cast<double>(largest / size);
}

int main() {
  Tensor text(2, 129, 256);  // [B,T,C]: two sequences of 129 tokens, 256 channels each
  Tensor x(2, 128, 256), next(2, 1, 256);
  text.setRandom();
  for (Eigen::Index b = 0; b < 2; ++b) {
    std::copy_n(&text(b, 0, 0), x.size() / 2, &x(b, 0, 0));
    std::copy_n(&text(b, 128, 0), next.size() / 2, &next(b, 0, 0));
  }

  retnet::MultiScaleRetention<float> layer({.d_model = 256, .heads = 4}, retnet::Seed{42});

  const Tensor y = layer.forward_parallel(x);               // the whole sequence at once: O(T^2)
  auto state = layer.initial_state(/*sequences=*/2);        // everything that is remembered
  const Tensor y2 = layer.forward_chunkwise(x, state, 64);  // the same y, 64 tokens a time: O(T)
  const Tensor y3 = layer.forward_recurrent(next, state);   // one more token: O(1)

  const double chunkwise = difference(y2, y);
  const double recurrent = difference(y3, layer.forward_parallel(text), 128);
  std::printf("chunkwise differs from parallel by %.1e\n", chunkwise);
  std::printf("recurrent differs from parallel by %.1e\n", recurrent);
  return chunkwise < 1e-5 && recurrent < 1e-5 ? 0 : 1;
}
