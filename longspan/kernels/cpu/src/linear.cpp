#include "linear_run.hpp"

#include <algorithm>
#include <memory>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "pool.hpp"
#include "run.hpp"

namespace longspan {

namespace {

constexpr int64_t TASK = 32768;            // bytes of weights that a thread takes at a time
constexpr int64_t TASKS = 4;               // of a thread at least, so that all end together, while they have
constexpr int64_t PART = 32768;            // numbers that a thread normalizes or rounds at a time
constexpr int64_t LEAST = 64, MOST = 256;  // rows, for which laying out a tile costs a sixth, and a thirtieth
constexpr int64_t WHOLE = 4;               // rows that byte products take at a time
constexpr int64_t PACKED = 1024;           // rows that are bytes at a time

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

enum class Has { no, yes, unknown };
constexpr unsigned TILES = 1u << 22, HALVES = 1u << 23;

// Whether the processor has what that bit of its description says.
Has has(unsigned bit) {
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid_count(7, 0, &a, &b, &c, &d);
    return d & bit ? Has::yes : Has::no;
#else
    (void)bit;
    return Has::unknown;
#endif
}

}  // namespace

void Linear::add(const Matrix& matrix) {
    matrices_.push_back(matrix);
    if (act_ != Act::none && matrices_.size() % 2) return;  // a gate goes with what follows it
    for (int64_t from = 0; from < matrix.rows; from += step_)
        tasks_.push_back({matrices_.size() - 1, from, std::min(from + step_, matrix.rows)});
    for (int64_t from = 0; from < matrix.rows; from += Activations::SPAN)
        tiles_.push_back({matrices_.size() - 1, from, std::min(from + Activations::SPAN, matrix.rows)});
}

Linear::Linear(const Level* level, Kind kind, Kind stored, int64_t columns, Act act)
    : level_(level), kind_(kind), stored_(stored), columns_(columns), act_(act) {
    const int64_t bits = stored == Kind::f32 ? 32 : stored == Kind::int8 ? 8 : stored == Kind::int4 ? 4 : 16;
    const int64_t rows = TASK / std::max<int64_t>(1, columns * bits / 8);
    step_ = std::clamp<int64_t>(rows / 4 * 4, 4, Activations::SPAN);
}

void Linear::run(int threads, int64_t rows, const char* x, char* const* out) const {
    Activations given{kind_, stored_, rows, columns_, x, nullptr};
    if (rows > Activations::FEW) return many(threads, given, out);
    if (const size_t bytes = level_->linear_packed(given)) given.packed = memory(bytes);
    level_->linear_pack(given);
    const bool gated = act_ != Act::none;
    parallel(threads, static_cast<int64_t>(tasks_.size()), 0, [&](int64_t i, float*) {
        const Task& task = tasks_[static_cast<size_t>(i)];
        const Matrix& matrix = matrices_[task.matrix];
        level_->linear(given, gated ? &matrix - 1 : nullptr, act_, matrix, task.from, task.to,
                       out[gated ? task.matrix / 2 : task.matrix]);
    });
}

void Linear::many(int threads, const Activations& given, char* const* out) const {
    if (!in_bytes()) return block(threads, given, 0, out);
    const int64_t unit = kind_ == Kind::f32 ? 4 : 2;
    for (int64_t start = 0; start < given.rows; start += PACKED) {
        Activations part = given;
        part.rows = std::min(PACKED, given.rows - start);
        part.x += start * columns_ * unit;
        part.packed = memory(level_->bytes_packed(part));
        parallel(threads, (part.rows + LEAST - 1) / LEAST, 0,
                 [&](int64_t i, float*) { level_->bytes_pack(part, i * LEAST, i * LEAST + LEAST); });
        block(threads, part, start, out);
    }
}

// start: rows of the results before these
void Linear::block(int threads, const Activations& given, int64_t start, char* const* out) const {
    const auto tiles = static_cast<int64_t>(tiles_.size()), tasks = TASKS * threads;
    const int64_t enough = std::min((tasks + tiles - 1) / tiles, (given.rows + LEAST - 1) / LEAST);
    const int64_t blocks = std::max((given.rows + MOST - 1) / MOST, enough);
    const int64_t each = ((given.rows + blocks - 1) / blocks + WHOLE - 1) / WHOLE * WHOLE;
    const int64_t unit = kind_ == Kind::f32 ? 4 : 2;
    const bool gated = act_ != Act::none;
    parallel(threads, tiles * blocks, level_->many_scratch(each, gated), [&](int64_t i, float* scratch) {
        const Task& task = tiles_[static_cast<size_t>(i / blocks)];
        const Matrix& matrix = matrices_[task.matrix];
        const int64_t first = i % blocks * each, last = std::min(first + each, given.rows);
        if (first < last)
            level_->many(given, gated ? &matrix - 1 : nullptr, act_, matrix, task.from, task.to, first, last,
                         out[gated ? task.matrix / 2 : task.matrix] + start * matrix.rows * unit, scratch);
    });
}

bool Linear::in_bytes() const { return level_->bytes_packed({kind_, stored_, 1, columns_, nullptr, nullptr}) > 0; }

// torch multiplies bfloat16 numbers with tiles where there are some, and float16 ones well where the processor has
// them.
bool Linear::widens(Kind kind) {
    if (kind == Kind::f16) return has(HALVES) == Has::no;
    return kind == Kind::bf16 && has(TILES) == Has::no && !pairs();
}

bool Linear::pays() const { return widens(kind_) || (in_bytes() && has(TILES) == Has::no); }

void Linear::open(int threads, int64_t from, int64_t to, char* out) const {
    const Activations given{kind_, stored_, 0, columns_, nullptr, nullptr};
    const int64_t row = columns_ * (kind_ == Kind::f32 ? 4 : 2);
    parallel(threads, (to - from + step_ - 1) / step_, 0, [&](int64_t i, float*) {
        const int64_t a = from + i * step_;
        level_->open(given, matrices_[0], a, std::min(a + step_, to), out + (a - from) * row);
    });
}

void rms_norm(const Level* level, int threads, const Norm& norm) {
    const int64_t row = norm.columns * (norm.kind == Kind::f32 ? 4 : 2),
                  each = std::max<int64_t>(1, PART / norm.columns);
    if (norm.rows <= each) {
        level->rms_norm(norm, reinterpret_cast<float*>(memory(static_cast<size_t>(4 * norm.columns))));
        return;
    }
    const auto scratch = static_cast<size_t>(norm.columns);
    parallel(threads, (norm.rows + each - 1) / each, scratch, [&](int64_t i, float* floats) {
        Norm part = norm;
        const int64_t at = i * each * row;
        part.rows = std::min(each, norm.rows - i * each);
        part.x += at;
        part.out += at;
        if (norm.residual) {
            part.residual += at;
            part.sum += at;
        }
        level->rms_norm(part, floats);
    });
}

void narrow(const Level* level, int threads, Kind kind, int64_t n, const float* from, char* to) {
    const int64_t unit = kind == Kind::f32 ? 4 : 2;
    parallel(threads, (n + PART - 1) / PART, 0, [&](int64_t i, float*) {
        const int64_t at = i * PART;
        level->narrow(kind, from + at, to + at * unit, std::min(PART, n - at));
    });
}

}  // namespace longspan
