// Attention of a few rows over pages where they lie: a running softmax, page by page, in float32.
#pragma once

namespace {

constexpr int64_t PAD = 64;  // floats that vectors may read beyond an array

inline int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

// Working arrays of one span; total and shift are those of one of its lanes.
struct Room {
    float *turned, *scaled, *scores, *weights, *low, *step, *bias, *factor, *now, *fine, *total, *shift;
    char* opened;
    int64_t size;

    static int64_t shifts(const Attention& a) { return a.dim / V::W + V::W; }  // of one query
    Room of(const Attention& a, int64_t lane) const {
        Room r = *this;
        r.total += lane * a.many() * V::W;
        r.shift += lane * a.many() * shifts(a);
        return r;
    }
    Room(const Attention& a, float* memory) {
        int64_t m = a.many(), used = 0;
        auto take = [&](int64_t n) {
            float* p = memory ? memory + used : nullptr;
            used += padded(n + PAD);
            return p;
        };
        turned = take(m * a.dim);
        scaled = take(m * a.dim);
        scores = take(m * a.page);
        weights = take(m * a.page * a.dim / V::W);  // a coefficient for each slot and each group of W channels or more
        low = take(a.page * a.dim);                 // groups may be as narrow as a channel
        step = take(a.page * a.dim);
        bias = take(m);
        factor = take(m);
        now = take(m);
        fine = take(m);
        total = take(a.lanes * m * V::W);
        shift = take(a.lanes * m * shifts(a));
        opened = reinterpret_cast<char*>(take(a.dim * a.page));
        size = used;
    }
};

inline size_t span_scratch(const Attention& a) { return static_cast<size_t>(Room(a, nullptr).size); }

// out [D] = a query turned by cos, sin [half]; BACK: the other way.
template <bool BACK = false>
void turn(const float* q, int64_t dim, int64_t half, const float* cos, const float* sin, float* out) {
    int64_t i = 0;
    for (; i + V::W <= half; i += V::W) {
        V::F x = V::load(q + i), y = V::load(q + half + i), c = V::load(cos + i), s = V::load(sin + i);
        if (BACK) s = V::sub(V::set(0.0f), s);
        V::store(out + i, V::sub(V::mul(x, c), V::mul(y, s)));
        V::store(out + half + i, V::fma(y, c, V::mul(x, s)));
    }
    for (; i < half; i++) {
        const float s = BACK ? -sin[i] : sin[i];
        out[i] = q[i] * cos[i] - q[half + i] * s;
        out[half + i] = q[half + i] * cos[i] + q[i] * s;
    }
    for (i = 2 * half; i < dim; i++) out[i] = q[i];
}

inline void widen(const uint16_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += V::W) V::store(to + i, V::f16(from + i));
}

inline void fetch(const uint16_t* halves, int64_t n) {
    for (int64_t i = 0; i < n; i += 32) __builtin_prefetch(halves + i);
}

// scaled = q·step and bias = q · low: the scores of codes are those of the keys.
inline void fold(const Attention& a, const Room& r, const uint16_t* low, const uint16_t* step) {
    widen(low, a.dim, r.low);
    widen(step, a.dim, r.step);
    for (int64_t m = 0; m < a.many(); m++) {
        V::F sum = V::set(0.0f);
        for (int64_t d = 0; d < a.dim; d += V::W) {
            V::F q = V::load(r.turned + m * a.dim + d);
            sum = V::fma(q, V::load(r.low + d), sum);
            V::store(r.scaled + m * a.dim + d, V::mul(q, V::load(r.step + d)));
        }
        r.bias[m] = V::sum(sum);
    }
}

// weights[k·groups + c] = score·step of slot k and group c; shift gathers score·low. Where groups is a power of two
// lane l of shift belongs to group l mod groups; elsewhere entry c to group c.
inline void spread(const Attention& a, const Room& r, const Segment& s, const uint16_t* low, const uint16_t* step) {
    const int64_t n = a.page * s.groups, ld = Room::shifts(a);
    const bool even = (s.groups & (s.groups - 1)) == 0 && s.groups <= V::W;
    widen(low, n, r.low);
    widen(step, n, r.step);
    for (int64_t m = 0; m < a.many(); m++) {
        const float* w = r.scores + m * a.page;
        float *to = r.weights + m * n, *shift = r.shift + m * ld;
        if (even) {
            const int log = __builtin_ctzll(static_cast<unsigned long long>(s.groups));
            V::F sum = V::mul(V::load(shift), V::set(r.factor[m]));
            for (int64_t i = 0; i < n; i += V::W) {
                V::F x = V::spread(w + (i >> log), log);
                V::store(to + i, V::mul(x, V::load(r.step + i)));
                sum = V::fma(x, V::load(r.low + i), sum);
            }
            V::store(shift, sum);
        } else {
            for (int64_t c = 0; c < s.groups; c++) {
                float sum = shift[c] * r.factor[m];
                for (int64_t k = 0; k < a.page; k++) {
                    to[k * s.groups + c] = w[k] * r.step[k * s.groups + c];
                    sum += w[k] * r.low[k * s.groups + c];
                }
                shift[c] = sum;
            }
        }
    }
}

// Scores of a page become weights; what was summed so far is to be multiplied by `factor`.
inline void soften(const Attention& a, const Room& r, int64_t first_slot, float* tops) {
    const int64_t g = a.group(), last = a.first + a.rows - 1;
    const bool whole =
        first_slot >= a.begin && first_slot + a.page - 1 <= a.first && (a.window == 0 || first_slot > last - a.window);
    for (int64_t m = 0; m < a.many(); m++) {
        float* w = r.scores + m * a.page;
        const int64_t at = a.first + m / g;
        int64_t from = a.begin - first_slot, to = at + 1 - first_slot;
        if (a.window && at - a.window + 1 - first_slot > from) from = at - a.window + 1 - first_slot;
        V::F most = V::set(-__builtin_inff());
        for (int64_t i = 0; i < a.page; i += V::W) {
            V::F x = V::load(w + i);
            if (a.softcap != 0) x = V::mul(V::set(a.softcap), tanhf(V::div(x, V::set(a.softcap))));
            if (!whole) x = V::only(x, from - i, to - i);
            if (a.softcap != 0 || !whole) V::store(w + i, x);
            most = V::max(most, x);
        }
        float here = V::most(most), top = here > tops[m] ? here : tops[m];
        V::F less = V::set(top);
        float past[V::W];
        V::store(past, expf(V::sub(V::set(tops[m]), less)));
        tops[m] = top;
        r.factor[m] = past[0];
        V::F sum = V::mul(V::load(r.total + m * V::W), V::set(past[0]));
        for (int64_t i = 0; i < a.page; i += V::W) {
            V::F x = expf(V::sub(V::load(w + i), less));
            V::store(w + i, x);
            sum = V::add(sum, x);
        }
        V::store(r.total + m * V::W, sum);
    }
}

// Codes two to the byte, rows of n, as one byte each: for widths that vectors do not divide.
inline const char* unpacked(const char* packed, int64_t rows, int64_t n, char* out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n / 2; i++) {
            auto byte = static_cast<unsigned char>(packed[r * (n / 2) + i]);
            out[r * n + i] = static_cast<char>(byte & 15);
            out[r * n + n / 2 + i] = static_cast<char>(byte >> 4);
        }
    return out;
}

// Values [P, D] in float32, from one code to the byte.
inline const char* valued(const Attention& a, const Segment& s, const char* codes, const uint16_t* low,
                          const uint16_t* step, const Room& r) {
    widen(low, a.page * s.groups, r.low);
    widen(step, a.page * s.groups, r.step);
    const int64_t width = a.dim / s.groups;
    float* out = reinterpret_cast<float*>(r.opened);
    // from the end, since the codes may lie at the beginning of `out`
    for (int64_t i = a.page * a.dim; i-- > 0;) {
        const int64_t at = i / a.dim * s.groups + i % a.dim / width;
        out[i] = r.low[at] + r.step[at] * static_cast<float>(static_cast<unsigned char>(codes[i]));
    }
    return r.opened;
}

template <class L>
void scores(const Attention& a, const Room& r, const float* q, const float* bias, const char* keys, const char* next) {
    multiply<L, 0>({keys, 0, a.dim, a.page, q, a.dim, bias, nullptr, r.scores, a.page, 1, next}, a.many());
}

template <class L>
void values(const Attention& a, const Room& r, int64_t groups, int64_t from, int64_t to, const char* rows, float* part,
            const char* next) {
    Product x{rows, from, to, a.dim, r.scores, a.page, nullptr, r.factor, part, a.dim, groups, next};
    if (groups == 0) {
        x.groups = 1;
        multiply<L, 0>(x, a.many());
        return;
    }
    x.a = r.weights;
    x.lda = a.page * groups;
    constexpr int MOST = V::BLOCK / L::DENSITY;  // neighbouring vectors of a block
    const int64_t vectors = a.dim / groups / V::W, half = a.dim / L::DENSITY / V::W;
    if (groups == 1 && L::DENSITY == 1)
        multiply<L, 0>(x, a.many());
    else if (MOST == 4 && vectors % 4 == 0 && half % 4 == 0)
        multiply<L, (MOST >= 4 ? 4 : 1)>(x, a.many());
    else if (vectors % 2 == 0 && half % 2 == 0)
        multiply<L, (MOST >= 2 ? 2 : 1)>(x, a.many());
    else
        multiply<L, 1>(x, a.many());
}

inline int64_t page_bytes(Kind kind, int64_t numbers) {
    switch (kind) {
        case Kind::f32: return 4 * numbers;
        case Kind::bf16:
        case Kind::f16: return 2 * numbers;
        case Kind::int8: return numbers;
        default: return numbers / 2;
    }
}

// What a span holds of one page of one lane.
struct Place {
    int64_t at;  // entry of the slab
    const char *keys, *rows;

    Place(const Attention& a, const Segment& s, int64_t lane, int64_t page) {
        const int64_t bytes = page_bytes(s.kind, a.dim * a.page);
        at = s.ids ? s.ids[page * a.lanes + lane] : page * a.lanes + lane;
        keys = s.keys + at * bytes;
        rows = s.values + at * bytes;
    }
};

// The next page and the one after it: lines are asked for while this one is read, and addresses before that, so that
// they are translated by then. The processor does not look beyond a page by itself.
inline void ahead(const Attention& a, const Segment& s, const Place* next, const Place* later) {
    if (later)
        for (int64_t i = 0, bytes = page_bytes(s.kind, a.dim * a.page); i < bytes; i += 4096) {
            __builtin_prefetch(later->keys + i);
            __builtin_prefetch(later->rows + i);
        }
    if (next && s.key_min) {
        fetch(s.key_min + next->at * a.dim, a.dim);
        fetch(s.key_step + next->at * a.dim, a.dim);
        fetch(s.value_min + next->at * a.page * s.groups, a.page * s.groups);
        fetch(s.value_step + next->at * a.page * s.groups, a.page * s.groups);
    }
}

}  // namespace

#include "narrow.hpp"

namespace {

// A page, of whose slots begin…end are seen by some row.
inline void visit(const Attention& a, const Segment& s, const Room& r, int64_t slot, int64_t begin, int64_t end,
                  const Place& here, const Place* next, float* part) {
    const char *keys = here.keys, *rows = here.rows, *next_keys = next ? next->keys : nullptr,
               *next_rows = next ? next->rows : nullptr;
    float* tops = part + a.many() * a.dim;
    const bool coded = s.kind == Kind::int8 || s.kind == Kind::int4;
    if (coded) fold(a, r, s.key_min + here.at * a.dim, s.key_step + here.at * a.dim);
    const float *q = coded ? r.scaled : r.turned, *bias = coded ? r.bias : nullptr;
    const bool odd_keys = (a.page / 2) % V::W, odd_values = (a.dim / 2) % V::W;
    switch (s.kind) {
        case Kind::f32: scores<Float>(a, r, q, bias, keys, next_keys); break;
        case Kind::bf16: scores<Half<true>>(a, r, q, bias, keys, next_keys); break;
        case Kind::f16: scores<Half<false>>(a, r, q, bias, keys, next_keys); break;
        case Kind::int8: scores<Byte>(a, r, q, bias, keys, next_keys); break;
        case Kind::int4:
            if (odd_keys)
                scores<Byte>(a, r, q, bias, unpacked(keys, a.dim, a.page, r.opened), nullptr);
            else
                scores<Nibble>(a, r, q, bias, keys, next_keys);
    }
    soften(a, r, slot, tops);
    if (coded) {
        const int64_t at = here.at * a.page * s.groups;
        const uint16_t *least = s.value_min + at, *step = s.value_step + at;
        if (a.dim / s.groups % V::W) {  // no vector has one scale only
            if (s.kind == Kind::int4) rows = unpacked(rows, a.page, a.dim, r.opened);
            values<Float>(a, r, 0, begin, end, valued(a, s, rows, least, step, r), part, nullptr);
            return;
        }
        spread(a, r, s, least, step);
    }
    switch (s.kind) {  // slots outside begin…end may hold NaN, which weight 0 would not silence
        case Kind::f32: values<Float>(a, r, 0, begin, end, rows, part, next_rows); break;
        case Kind::bf16: values<Half<true>>(a, r, 0, begin, end, rows, part, next_rows); break;
        case Kind::f16: values<Half<false>>(a, r, 0, begin, end, rows, part, next_rows); break;
        case Kind::int8: values<Byte>(a, r, s.groups, begin, end, rows, part, next_rows); break;
        case Kind::int4:
            if (odd_values)
                values<Byte>(a, r, s.groups, begin, end, unpacked(rows, a.page, a.dim, r.opened), part, nullptr);
            else
                values<Nibble>(a, r, s.groups, begin, end, rows, part, next_rows);
    }
}

void span(const Attention& a, const Segment& s, const Stretch& x, float* scratch, float* parts) {
    const Room room(a, scratch);
    const int64_t many = a.many(), g = a.group(), ld = Room::shifts(a), lanes = x.lane_to - x.lane;
    for (int64_t lane = 0; lane < lanes; lane++) {
        const Room r = room.of(a, lane);
        float* part = parts + lane * x.stride;
        for (int64_t i = 0; i < many * a.dim; i++) part[i] = 0.0f;
        for (int64_t i = 0; i < many * V::W; i++) r.total[i] = 0.0f;
        for (int64_t i = 0; i < many * ld; i++) r.shift[i] = 0.0f;
        for (int64_t m = 0; m < many; m++) part[many * a.dim + m] = -1e30f;
    }
    const int64_t low = a.window && a.first - a.window + 1 > a.begin ? a.first - a.window + 1 : a.begin;
    const int64_t high = a.first + a.rows;
#if defined(__AVX512BF16__)
    const bool fast = narrow::serves(a, s);
#endif
    // all lanes of a page, which lie side by side, before the next page
    const int64_t all = s.pages * lanes;
    auto place = [&](int64_t i) {
        const int64_t j = i < all ? i : all - 1;
        return Place(a, s, x.lane + j % lanes, j / lanes);
    };
    int64_t n = x.from - 1, lane = lanes - 1;
    Place here = place(x.from * lanes), next = place(x.from * lanes + 1), later = next;
    for (int64_t i = x.from * lanes; i < x.to * lanes; i++, here = next, next = later) {
        later = place(i + 2);
        if (++lane == lanes) lane = 0, n++;
        const int64_t slot = a.base + (s.start + n) * a.page;
        const int64_t begin = low > slot ? low - slot : 0, end = high - slot < a.page ? high - slot : a.page;
        if (begin >= end) continue;
        const Place* soon = i + 1 < all ? &next : nullptr;
        ahead(a, s, soon, i + 2 < all ? &later : nullptr);
        const Room r = room.of(a, lane);
        const float* queries = a.queries + (x.lane + lane) * g * a.dim;
        const int64_t at = (s.start + n) * a.half;
        float* turned = r.turned;
        for (int64_t row = 0; row < a.rows; row++, queries += a.heads * a.dim)
            for (int64_t head = 0; head < g; head++, turned += a.dim)
                turn(queries + head * a.dim, a.dim, a.half, a.cos + at, a.sin + at, turned);
        float* part = parts + lane * x.stride;
#if defined(__AVX512BF16__)
        if (fast && begin == 0 && slot + a.page - 1 <= a.first && (a.window == 0 || slot > high - 1 - a.window)) {
            narrow::page(a, s, r, here, soon, part);
            continue;
        }
#endif
        visit(a, s, r, slot, begin, end, here, soon, part);
    }
    const bool coded = s.kind == Kind::int8 || s.kind == Kind::int4;
    const bool even = (s.groups & (s.groups - 1)) == 0 && s.groups <= V::W;
    for (int64_t i = 0; i < lanes * many; i++) {
        const int64_t lane = i / many, m = i % many;
        const Room r = room.of(a, lane);
        float* part = parts + lane * x.stride;
        part[many * (a.dim + 1) + m] = V::sum(V::load(r.total + m * V::W));
        if (!coded) continue;
        const float* shift = r.shift + m * ld;
        for (int64_t c = 0; c < s.groups; c++) {
            float sum = shift[c];
            for (int64_t l = c + s.groups; even && l < V::W; l += s.groups) sum += shift[l];
            const int64_t width = a.dim / s.groups;
            for (int64_t d = 0; d < width; d++) part[m * a.dim + c * width + d] += sum;
        }
    }
}

// Partial results of a lane, `count` of them, to the rows of out [R, H, D].
void join(const Attention& a, int64_t lane, const float* const* parts, int64_t count, const float* sinks, float* out) {
    const int64_t many = a.many(), g = a.group(), dim = a.dim;
    for (int64_t m = 0; m < many; m++) {
        const int64_t head = lane * g + m % g;
        float top = sinks ? sinks[head] : -1e30f;
        for (int64_t i = 0; i < count; i++) {
            const float x = parts[i][many * dim + m];
            if (x > top) top = x;
        }
        auto weight = [top](float x) {
            float first[V::W];
            V::store(first, expf(V::set(x - top)));
            return first[0];
        };
        float total = sinks ? weight(sinks[head]) : 0.0f, *to = out + ((m / g) * a.heads + head) * dim;
        for (int64_t d = 0; d < dim; d += V::W) V::store(to + d, V::set(0.0f));
        for (int64_t i = 0; i < count; i++) {
            const float w = weight(parts[i][many * dim + m]);
            total += w * parts[i][many * (dim + 1) + m];
            for (int64_t d = 0; d < dim; d += V::W)
                V::store(to + d, V::fma(V::set(w), V::load(parts[i] + m * dim + d), V::load(to + d)));
        }
        for (int64_t d = 0; d < dim; d += V::W) V::store(to + d, V::div(V::load(to + d), V::set(total)));
    }
}

}  // namespace
