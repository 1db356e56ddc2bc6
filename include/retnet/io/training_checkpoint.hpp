// SPDX-License-Identifier: MIT
// A training run as one file: weights, moments, the carried state and the counters. Written whole
// or not at all, so a kill at any moment leaves the old file or the new one; a run that is loaded
// goes on exactly as if it had never stopped.
#pragma once

#include <map>
#include <string>

#include "retnet/io/checkpoint.hpp"
#include "retnet/train/trainer.hpp"

namespace retnet::inline RETNET_ABI {

/// Numbers of the caller that belong to the run: seconds spent, tokens seen, a best loss.
using RunNotes = std::map<std::string, double>;

/// Throws std::system_error naming the file; an old file of that name is whole then.
template <class Scalar>
void save_training(const std::string& path, const Trainer<Scalar>& trainer,
                   const RunNotes& notes = {}) {
  CheckpointWriter out;
  out.add_params("", trainer.layout(), trainer.weights());
  out.add_params("adam.m.", trainer.layout(), trainer.optimizer().first_moment());
  out.add_params("adam.v.", trainer.layout(), trainer.optimizer().second_moment());
  const auto& carried = trainer.carried_state();
  if (!carried.empty()) out.add_state("carried.", carried);
  out.set("carried_sequences", carried.sequences());
  out.set("step", trainer.step());
  out.set("adam_steps", trainer.optimizer().steps());
  for (const auto& [key, value] : notes) out.set("note." + key, value);
  out.write(path);
}

/// Into a trainer of the same model; returns the notes. Throws std::invalid_argument naming what
/// does not fit, std::system_error if the file cannot be read; the trainer is unchanged then.
template <class Scalar>
RunNotes load_training(const std::string& path, Trainer<Scalar>& trainer) {
  CheckpointReader in(path);
  const auto step = in.get<std::int64_t>("step");
  const auto adam_steps = in.get<std::int64_t>("adam_steps");
  const auto sequences = in.get<Index>("carried_sequences");
  RETNET_CHECK(step >= 0 && adam_steps >= 0 && adam_steps <= step && sequences >= 0,
               "load_training", path, ": step = ", step, ", adam_steps = ", adam_steps,
               ", carried_sequences = ", sequences,
               ", expected 0 <= adam_steps <= step and 0 <= carried_sequences");
  RunNotes notes;
  for (const auto& [key, text] : in.file().metadata())
    if (key.starts_with("note.")) notes[key.substr(5)] = in.get<double>(key);

  ModelState<Scalar> carried;
  if (sequences > 0) {
    const StoredTensor* t =
        in.file().find("carried.layers.0.positions");  // bounds what is allocated
    RETNET_CHECK(t != nullptr && static_cast<Index>(t->size()) == sequences, "load_training", path,
                 ": no carried state of ", sequences, " sequences");
    carried = trainer.model().initial_state(sequences);
    in.expect_state("carried.", carried);
  }
  in.expect_params("", trainer.layout(), trainer.weights());
  in.expect_params("adam.m.", trainer.layout(), trainer.optimizer().first_moment());
  in.expect_params("adam.v.", trainer.layout(), trainer.optimizer().second_moment());
  in.load();
  trainer.carried_state() = std::move(carried);
  trainer.set_step(step);
  trainer.optimizer().set_steps(adam_steps);
  return notes;
}

}  // namespace retnet::inline RETNET_ABI
