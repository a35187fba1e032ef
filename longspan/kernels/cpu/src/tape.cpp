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
    ops_.push_back([=](int threads, const Held*) {
        rms_norm(level_, threads, norm);
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

Kept Keeping::Sequence::of(int64_t layer) const {
    Kept k = kept;
    const int64_t lane = layer * k.lanes;
    k.table += lane * k.columns;
    k.sealed += lane;
    k.counts += lane;
    k.positions += lane * k.room;
    if (k.weights) k.weights += lane * k.room;
    if (k.turns) k.turns += lane * k.span;
    if (k.mass) k.mass += lane * k.span;
    if (k.recent) k.recent += lane * k.group() * k.span;
    if (k.used) k.used += lane * k.span;
    return k;
}

// A layer's keys and values to their pages; its queries, turned and scaled, in float32.
void Tape::put(int threads, const Attending& a, const Held& held, const Turn& keys, const Turn& queries,
               const int64_t* pages, const int64_t* places, int64_t place_lane, float* out) const {
    place(threads, {static_cast<int>(kind_), a.rows, a.heads, held.lanes, a.dim, held.page, keys.half, queries.half,
                    a.queries, a.keys, a.values, a.query_row, a.query_head, a.key_row, a.key_head, a.value_row,
                    a.value_head, keys.cos, keys.sin, queries.cos, queries.sin, a.scale, pages, places, place_lane,
                    held.keys, held.values, out});
}

void Tape::read(int threads, const Attending& a, const Held& held, const Reading& reading, int64_t index,
                float* queries, float* sums) const {
    put(threads, a, held, reading.keys, reading.queries, reading.pages + index * held.lanes * a.rows, reading.places, 0,
        queries);
    Decode decode(level_, threads);
    for (const Reading::Sequence& s : reading.sequences) {
        decode.work({queries, s.rows, a.heads, held.lanes, a.dim, held.page, s.distances.half, s.first, s.base, s.begin,
                     s.window, s.distances.cos, s.distances.sin, a.softcap, held.narrow},
                    a.sinks, sums);
        for (const Segment& segment : s.pages->layers[static_cast<size_t>(index)]) decode.add(segment);
        queries += s.rows * a.heads * a.dim;
        sums += s.rows * a.heads * a.dim;
    }
    decode.finish();
}

void Tape::keep(int threads, const Attending& a, const Held& held, const Keeping& keeping, int64_t index,
                float* queries, float* sums) const {
    const int64_t at = index * held.lanes * a.rows;
    put(threads, a, held, keeping.keys, {0, nullptr, nullptr}, keeping.pages + at, keeping.places + at, a.rows, queries);
    for (const Keeping::Sequence& s : keeping.sequences) {
        Kept k = s.of(index);
        for (int64_t i = 0; k.half && i < k.rows * k.heads; i++) {
            const int64_t row = i / k.heads, lane = i % k.heads / k.group();
            const int64_t from = ((s.apart ? (index * k.lanes + lane) * k.rows : 0) + row) * k.half;
            float* q = queries + i * k.dim;
            numbers::turn<Float>(q, k.dim, k.half, s.cos + from, s.sin + from, 1.0f, q);
        }
        std::unique_ptr<float[]> scores(new float[static_cast<size_t>(k.lanes * k.many() * k.width())]);
        k.queries = queries;
        k.softcap = a.softcap;
        k.learned = a.sinks;
        k.out = sums;
        k.scores = scores.get();
        longspan::attend(level_, threads, k);
        queries += k.rows * k.heads * k.dim;
        sums += k.rows * k.heads * k.dim;
    }
}

void Tape::attend(const Attending& a) {
    const int64_t size = a.rows * a.heads * a.dim;
    with(kind_, [&](auto numbers) {
        using N = decltype(numbers);
        ops_.push_back([=](int threads, const Held* held) {
            if (!held) return false;
            const auto [reading, keeping, index] = held->layers[static_cast<size_t>(a.layer)];
            float *queries = scratch(static_cast<size_t>(2 * size)), *sums = queries + size;
            if (reading >= 0)
                read(threads, a, *held, held->readings[static_cast<size_t>(reading)], index, queries, sums);
            else if (keeping >= 0)
                keep(threads, a, *held, held->keepings[static_cast<size_t>(keeping)], index, queries, sums);
            else
                return false;
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
