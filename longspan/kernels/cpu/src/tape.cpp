#include "tape.hpp"

#include <cstring>
#include <memory>
#include <utility>

#include "numbers.hpp"

namespace longspan {

namespace {

using namespace numbers;

template <class F>
void with(Kind kind, const F& call) {
    switch (kind) {
        case Kind::f32: return call(Float{});
        case Kind::bf16: return call(Brain{});
        default: return call(Half{});
    }
}

template <class N>
const typename N::T* as(const char* x) {
    return reinterpret_cast<const typename N::T*>(x);
}

// Memory of this thread that is reused.
float* scratch(size_t floats) {
    thread_local std::vector<float> held;
    if (held.size() < floats) held.resize(floats);
    return held.data();
}

}  // namespace

void Tape::rows(const char* table, int64_t bytes, const int64_t* ids, int64_t n, char* out) {
    ops_.push_back([=](int, const Held*) {
        for (int64_t i = 0; i < n; i++) std::memcpy(out + i * bytes, table + ids[i] * bytes, static_cast<size_t>(bytes));
        return true;
    });
}

void Tape::norm(const Norm& norm) {
    ops_.push_back([=](int, const Held*) {
        rms_norm(level_, norm);
        return true;
    });
}

void Tape::linear(const Linear* linear, int64_t rows, const char* x, std::vector<char*> out) {
    ops_.push_back([=, out = std::move(out)](int threads, const Held*) {
        linear->run(threads, rows, x, out.data());
        return true;
    });
}

void Tape::add(int64_t n, const char* a, const char* b, char* out) {
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int, const Held*) {
            auto* to = reinterpret_cast<typename N::T*>(out);
            for (int64_t i = 0; i < n; i++) to[i] = N::write(N::read(as<N>(a)[i]) + N::read(as<N>(b)[i]));
            return true;
        });
    });
}

void Tape::scale(int64_t n, const char* a, float by, char* out) {
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int, const Held*) {
            auto* to = reinterpret_cast<typename N::T*>(out);
            for (int64_t i = 0; i < n; i++) to[i] = N::write(N::read(as<N>(a)[i]) * by);
            return true;
        });
    });
}

void Tape::widen(int64_t n, const char* a, float* out) {
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int, const Held*) {
            for (int64_t i = 0; i < n; i++) out[i] = N::read(as<N>(a)[i]);
            return true;
        });
    });
}

void Tape::finite(int64_t n, const char* a, bool* out) {
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int, const Held*) {
            bool all = true;
            for (int64_t i = 0; i < n; i++) all &= (bits(N::read(as<N>(a)[i])) & 0x7f800000) != 0x7f800000;
            *out = all;
            return true;
        });
    });
}

void Tape::attend(const Attending& a) {
    const int64_t size = a.rows * a.heads * a.dim;
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int threads, const Held* held) {
            if (!held || held->layers[static_cast<size_t>(a.layer)].reading < 0) return false;
            const auto [number, index] = held->layers[static_cast<size_t>(a.layer)];
            const Reading& reading = held->readings[static_cast<size_t>(number)];
            float *queries = scratch(static_cast<size_t>(2 * size)), *sums = queries + size;
            place(threads, {static_cast<int>(kind_), a.rows, a.heads, held->lanes, a.dim, held->page, reading.keys.half,
                            reading.queries.half, a.queries, a.keys, a.values, a.query_row, a.query_head, a.key_row,
                            a.key_head, a.value_row, a.value_head, reading.keys.cos, reading.keys.sin,
                            reading.queries.cos, reading.queries.sin, a.scale,
                            reading.pages + index * held->lanes * a.rows, reading.places, 0, held->keys, held->values,
                            queries});
            Decode decode(level_, threads);
            int64_t row = 0;
            for (const Reading::Sequence& s : reading.sequences) {
                const int64_t at = row * a.heads * a.dim;
                decode.work({queries + at, s.rows, a.heads, held->lanes, a.dim, held->page, s.distances.half, s.first,
                             s.base, s.begin, s.window, s.distances.cos, s.distances.sin, a.softcap, held->narrow},
                            a.sinks, sums + at);
                for (const Segment& segment : s.pages->layers[static_cast<size_t>(index)]) decode.add(segment);
                row += s.rows;
            }
            decode.finish();
            auto* to = reinterpret_cast<typename N::T*>(a.out);
            for (int64_t i = 0; i < size; i++) to[i] = N::write(sums[i]);
            return true;
        });
    });
}

void Tape::stop() {
    ops_.push_back([](int, const Held*) { return false; });
}

int64_t Tape::run(int64_t at, int threads, const Held* held) const {
    for (; at < static_cast<int64_t>(ops_.size()); at++)
        if (!ops_[static_cast<size_t>(at)](threads, held)) return at;
    return -1;
}

}  // namespace longspan
