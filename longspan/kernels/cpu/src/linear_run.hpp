// The matrices of a layer, prepared once, and their products with few rows of activations.
#pragma once

#include <vector>

#include "jobs.hpp"

namespace longspan {

// Matrices that share their input; with an act, each second one is gated by the one before it.
class Linear {
public:
    Linear(const Level* level, Kind kind, Kind stored, int64_t columns, Act act);
    void add(const Matrix& matrix);
    // x [T, K]; out: where each result [T, N] goes
    void run(int threads, int64_t rows, const char* x, char* const* out) const;
    // Whether float32 products of many rows pay here, where torch multiplies numbers of that kind.
    static bool widens(Kind kind);
    // Whether many rows are multiplied faster here than by torch.
    bool pays() const;
    // Whether many rows and the codes of the matrices are multiplied as bytes.
    bool in_bytes() const;
    // rows from…to of the first matrix, which is of codes, as numbers: out [to − from, K]
    void open(int threads, int64_t from, int64_t to, char* out) const;
    size_t results() const { return act_ == Act::none ? matrices_.size() : matrices_.size() / 2; }

private:
    struct Task {
        size_t matrix;
        int64_t from, to;
    };
    void many(int threads, const Activations& given, char* const* out) const;
    void block(int threads, const Activations& given, int64_t start, char* const* out) const;

    const Level* level_;
    Kind kind_, stored_;
    int64_t columns_, step_;
    Act act_;
    std::vector<Matrix> matrices_;
    std::vector<Task> tasks_, tiles_;  // for few rows, and for many
};

void rms_norm(const Level* level, int threads, const Norm& norm);

// n float32 numbers as numbers of that kind
void narrow(const Level* level, int threads, Kind kind, int64_t n, const float* from, char* to);

}  // namespace longspan
