// SPDX-License-Identifier: MIT
// What the blocks of the README take for granted.
#pragma once

#include <cstdio>
#include <retnet/io/model_file.hpp>
#include <retnet/io/pretrained.hpp>
#include <retnet/retnet.hpp>
#include <vector>

inline const std::vector<std::uint8_t> text(4096, 'a');  // something to train on
