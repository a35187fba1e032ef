// What the kernels around attention are asked: few rows of activations times the matrices of a layer, and norms.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longspan {

enum class Act : int { none, silu, gelu, gelu_tanh };

// A matrix [N, K], row after row: as its layer stores it, or each row's codes and then its scales.
struct Matrix {
    const char* weight;
    const char* bias;  // [N] in the kind of the activations; null: none
    int64_t rows;
};

// Activations [T, K], and how the matrices store their numbers.
struct Activations {
    static constexpr int64_t FEW = 16;   // rows up to which every row of a matrix is read once for all
    static constexpr int64_t SPAN = 64;  // rows of a matrix at most that one call computes
    Kind kind;                           // of activations, biases and results
    Kind stored;                         // of weights
    int64_t rows, columns;
    const char* x;
    char* packed;  // 64-byte aligned; what `pack` makes of x
};

// out [T, K] = x (+ residual, which gives sum) / root mean square · weight.
struct Norm {
    Kind kind;
    int64_t rows, columns;
    const char *x, *weight, *residual;  // residual null: none
    char *sum, *out;                    // sum may be where the residual is
    float eps;
    bool plus_one;
};

}  // namespace longspan
