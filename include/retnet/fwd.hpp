// SPDX-License-Identifier: MIT
// Every public name, declared; and the letters, defined once.
//
//   B   sequences in a batch              Dk  key dimension of a head
//   T   tokens in a sequence              Dv  value dimension of a head
//   C   d_model, channels of a token      V   vocabulary
//   H   heads (Hk: heads of keys/values)  N   sequences that a state or packed batch holds
//   R   rows = B*T: tokens of a batch     L   layers, or the length of a chunk inside an op
#pragma once

#include "retnet/core/scalar.hpp"

namespace retnet::inline RETNET_ABI {

// core: data and execution
template <class S, int Rank>
class View;
template <class S>
struct Window;
template <class T>
class Buffer;
struct Param;
class ParamLayout;
template <class S>
class ParamRef;
template <class S>
class ParamBuffer;
struct Seed;
class Sequences;
class Workspace;
class ThreadPool;
class Reference;
class Cpu;

// layers
struct RetentionConfig;
struct FeedForwardConfig;
struct AttentionConfig;
template <class MixerConfig>
struct BasicBlockConfig;
struct Form;
struct Pass;
struct DropoutKey;
template <class S>
class RetentionState;
template <class S>
class KeyValueState;
template <ComputeScalar Scalar, class Weight>
class MultiScaleRetention;
template <ComputeScalar Scalar, class Weight>
class Attention;
template <ComputeScalar Scalar, class Weight>
class FeedForward;
template <class Mixer>
class Block;

// model
struct RetNetConfig;
struct ModelSize;
template <class S>
class ModelState;
template <ComputeScalar Scalar, class Weight>
class RetNetModel;

}  // namespace retnet::inline RETNET_ABI
