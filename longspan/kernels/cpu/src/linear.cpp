#include "linear_run.hpp"

#include <algorithm>
#include <memory>

#include "pool.hpp"

namespace longspan {

namespace {

constexpr int64_t TASK = 32768;  // bytes of weights that a thread takes at a time

// Memory of this thread that is reused, aligned to what a cache line holds.
char* memory(size_t bytes) {
    thread_local std::unique_ptr<char[]> held;
    thread_local size_t size = 0;
    if (size < bytes + 64) {
        held.reset();
        size = 0;
        held.reset(new char[bytes + 64]);
        size = bytes + 64;
    }
    return held.get() + (64 - reinterpret_cast<uintptr_t>(held.get()) % 64) % 64;
}

}  // namespace

void Linear::add(const Matrix& matrix) {
    matrices_.push_back(matrix);
    if (act_ != Act::none && matrices_.size() % 2) return;  // a gate goes with what follows it
    for (int64_t from = 0; from < matrix.rows; from += step_)
        tasks_.push_back({matrices_.size() - 1, from, std::min(from + step_, matrix.rows)});
}

Linear::Linear(const Level* level, Kind kind, Kind stored, int64_t columns, Act act)
    : level_(level), kind_(kind), stored_(stored), columns_(columns), act_(act) {
    const int64_t bits = stored == Kind::f32 ? 32 : stored == Kind::int8 ? 8 : stored == Kind::int4 ? 4 : 16;
    const int64_t rows = TASK / std::max<int64_t>(1, columns * bits / 8);
    step_ = std::clamp<int64_t>(rows / 4 * 4, 4, Few::SPAN);
}

void Linear::run(int threads, int64_t rows, const char* x, char* const* out) const {
    Few few{kind_, stored_, rows, columns_, x, nullptr};
    if (const size_t bytes = level_->linear_packed(few)) few.packed = memory(bytes);
    level_->linear_pack(few);
    const bool gated = act_ != Act::none;
    parallel(threads, static_cast<int64_t>(tasks_.size()), 0, [&](int64_t i, float*) {
        const Task& task = tasks_[static_cast<size_t>(i)];
        const Matrix& matrix = matrices_[task.matrix];
        level_->linear(few, gated ? &matrix - 1 : nullptr, act_, matrix, task.from, task.to,
                       out[gated ? task.matrix / 2 : task.matrix]);
    });
}

void Linear::open(int threads, int64_t from, int64_t to, char* out) const {
    const Few few{kind_, stored_, 0, columns_, nullptr, nullptr};
    const int64_t row = columns_ * (kind_ == Kind::f32 ? 4 : 2);
    parallel(threads, (to - from + step_ - 1) / step_, 0, [&](int64_t i, float*) {
        const int64_t a = from + i * step_;
        level_->open(few, matrices_[0], a, std::min(a + step_, to), out + (a - from) * row);
    });
}

void rms_norm(const Level* level, const Norm& norm) {
    level->rms_norm(norm, reinterpret_cast<float*>(memory(static_cast<size_t>(4 * norm.columns))));
}

}  // namespace longspan
