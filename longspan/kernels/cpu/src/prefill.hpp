// Attention of many rows: pages are opened, turned to the reference page and laid out for the products once, and all
// rows of a tile run over them. Scores never leave the nearest cache; a running softmax joins the pages.
#pragma once

namespace {

constexpr int64_t BLOCK = 128;  // slots laid out at a time; with 64 channels they stay in the nearest cache
constexpr int64_t FAR = int64_t{1} << 62;

// Products come in units of 32 bits: a float32 number, or two neighbouring bfloat16 ones that are summed.
struct Exact {
    static constexpr int64_t UNIT = 1;
    static constexpr float FOLD = 1.0f;  // what scores are multiplied by
    static V::F dot(V::F sum, V::F a, V::F b) { return V::fma(a, b, sum); }
    static V::F exp(V::F x) { return expf(x); }
    // row: n numbers; UNIT rows at a time become one row of units
    static void units(const float* row, int64_t n, float* out) {
        for (int64_t i = 0; i < n; i += V::W) V::store(out + i, V::load(row + i));
    }
    // numbers that follow each other
    static void narrow(const float* from, int64_t n, float factor, float* out) {
        for (int64_t i = 0; i < n; i += V::W) V::store(out + i, V::mul(V::load(from + i), V::set(factor)));
    }
    static void scale(float* numbers, int64_t n, V::F factor) {
        for (int64_t i = 0; i < n; i += V::W) V::store(numbers + i, V::mul(V::load(numbers + i), factor));
    }
    template <int N>
    static void store(const V::F (&x)[N], float* out) {
        for (int i = 0; i < N; i++) V::store(out + i * V::W, x[i]);
    }
};

#if defined(__AVX512F__)
// Float32 products for a result that is rounded to bfloat16.
struct Wide : Exact {
    static constexpr float FOLD = 1.44269504f;  // powers of 2 are cheaper
    static V::F exp(V::F x) { return exp2(x); }
};
#endif

#if defined(__AVX512BF16__)
struct Brain {
    static constexpr int64_t UNIT = 2;
    static constexpr float FOLD = Wide::FOLD;
    static __m512bh cast(V::F x) { return (__m512bh)_mm512_castps_si512(x); }
    static V::F cast(__m512bh x) { return _mm512_castsi512_ps((__m512i)x); }
    static V::F dot(V::F sum, V::F a, V::F b) { return _mm512_dpbf16_ps(sum, cast(a), cast(b)); }
    static V::F exp(V::F x) { return exp2(x); }
    static void units(const float* row, int64_t n, float* out) {
        alignas(64) static constexpr uint16_t turns[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512i order = _mm512_load_si512(turns);
        for (int64_t i = 0; i < n; i += V::W) {
            __m512bh both = _mm512_cvtne2ps_pbh(V::load(row + n + i), V::load(row + i));
            V::store(out + i, _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, (__m512i)both)));
        }
    }
    static void put(float* out, V::F x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), (__m256i)_mm512_cvtneps_pbh(x));
    }
    static void narrow(const float* from, int64_t n, float factor, float* out) {
        for (int64_t i = 0; i < n; i += V::W) put(out + i / 2, V::mul(V::load(from + i), V::set(factor)));
    }
    static void scale(float* numbers, int64_t n, V::F factor) {
        for (int64_t i = 0; i < n / 2; i += V::W / 2)
            put(numbers + i, V::mul(V::bf16(reinterpret_cast<const uint16_t*>(numbers + i)), factor));
    }
    template <int N>
    static void store(const V::F (&x)[N], float* out) {
        for (int i = 0; i < N; i += 2) V::store(out + i / 2 * V::W, cast(_mm512_cvtne2ps_pbh(x[i + 1], x[i])));
    }
};
#endif

// Working arrays of one tile; numbers in units are as wide as float32.
struct TileRoom {
    static constexpr int64_t CHUNK = V::BLOCK * V::W;  // slots whose scores are in registers at a time
    int64_t many, width;                               // rows, and slots of a block, in whole steps
    float *queries, *sums, *totals, *tops, *keys, *values, *scores, *weights, *opened, *low, *step;
    int64_t* starts;  // position of the first slot of each vector of a block
    int64_t size;

    TileRoom(const Prompt& p, int64_t rows, float* memory) {
        if (memory) memory += (16 - reinterpret_cast<uintptr_t>(memory) / sizeof(float) % 16) % 16;
        many = (rows * p.group() + V::ROWS - 1) / V::ROWS * V::ROWS;
        width = ((p.page > BLOCK ? p.page : BLOCK) + CHUNK - 1) / CHUNK * CHUNK;
        int64_t used = 0;
        auto take = [&](int64_t n) {
            float* place = memory ? memory + used : nullptr;
            used += padded(n);
            return place;
        };
        queries = take(many * p.dim);
        sums = take(many * p.dim);
        totals = take(many * V::W);
        tops = take(many);
        keys = take(width * p.dim);
        values = take(width * p.dim);
        scores = take(V::ROWS * CHUNK);
        weights = take(V::ROWS * width);
        opened = take(p.page * p.dim);
        low = take(p.page * p.dim);  // groups may be as narrow as a channel
        step = take(p.page * p.dim);
        starts = reinterpret_cast<int64_t*>(take(2 * width / V::W));
        size = used + 16 + PAD;
    }
};

inline size_t prefill_scratch(const Prompt& p, int64_t rows) {
    return static_cast<size_t>(TileRoom(p, rows, nullptr).size);
}

// A matrix [rows, n] of a page in float32. Each row of codes has `groups` pairs of low and step.
template <class Room>
void open(Kind kind, const char* from, int64_t rows, int64_t n, const uint16_t* low, const uint16_t* step,
          int64_t groups, const Room& r) {
    const int64_t all = rows * n;
    if (kind == Kind::f32)
        for (int64_t i = 0; i < all; i += V::W)
            V::store(r.opened + i, V::load(reinterpret_cast<const float*>(from) + i));
    if (kind == Kind::bf16)
        for (int64_t i = 0; i < all; i += V::W)
            V::store(r.opened + i, V::bf16(reinterpret_cast<const uint16_t*>(from) + i));
    if (kind == Kind::f16) widen(reinterpret_cast<const uint16_t*>(from), all, r.opened);
    if (kind != Kind::int8 && kind != Kind::int4) return;
    widen(low, rows * groups, r.low);
    widen(step, rows * groups, r.step);
    const int64_t width = n / groups, half = n / 2;
    const bool two = kind == Kind::int4;
    const auto* codes = reinterpret_cast<const uint8_t*>(from);
    auto put = [&](int64_t row, int64_t column, V::F code) {
        const int64_t at = row * groups + column / width;
        V::store(r.opened + row * n + column, V::fma(V::set(r.step[at]), code, V::set(r.low[at])));
    };
    for (int64_t row = 0; row < rows; row++)
        if (width % V::W || (two && half % V::W)) {
            for (int64_t i = 0; i < n; i++) {
                const int byte = codes[two ? row * half + i % half : row * n + i];
                const int code = !two ? byte : i < half ? byte & 15 : byte >> 4;
                const int64_t at = row * groups + i / width;
                r.opened[row * n + i] = r.low[at] + r.step[at] * static_cast<float>(code);
            }
        } else if (two) {
            for (int64_t i = 0; i < half; i += V::W) {
                V::F a, b;
                V::nibbles(codes + row * half + i, a, b);
                put(row, i, a);
                put(row, half + i, b);
            }
        } else {
            for (int64_t i = 0; i < n; i += V::W) put(row, i, V::u8(codes + row * n + i));
        }
}

// Keys [D, P] turned back by the page's distance, which is as if queries had turned forth.
inline void turn_back(const Prompt& p, int64_t n, float* keys) {
    for (int64_t i = 0; i < p.half; i++) {
        V::F cos = V::set(p.cos[n * p.half + i]), sin = V::set(p.sin[n * p.half + i]);
        float *x = keys + i * p.page, *y = x + p.half * p.page;
        for (int64_t k = 0; k < p.page; k += V::W) {
            V::F a = V::load(x + k), b = V::load(y + k);
            V::store(x + k, V::fma(a, cos, V::mul(b, sin)));
            V::store(y + k, V::sub(V::mul(b, cos), V::mul(a, sin)));
        }
    }
}

// out [ROWS, N vectors] = a [ROWS, steps] times b [steps, N vectors], in units; ADD: and what was there.
template <class A, int N, bool ADD>
void product(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t steps, float* out, int64_t ldo) {
    V::F sum[V::ROWS][N];
    for (int j = 0; j < V::ROWS; j++)
        for (int i = 0; i < N; i++) sum[j][i] = ADD ? V::load(out + j * ldo + i * V::W) : V::set(0.0f);
    for (int64_t k = 0; k < steps; k++, b += ldb) {
        V::F x[N];
        for (int i = 0; i < N; i++) x[i] = V::load(b + i * V::W);
        for (int j = 0; j < V::ROWS; j++) {
            V::F c = V::set(a[j * lda + k]);
            for (int i = 0; i < N; i++) sum[j][i] = A::dot(sum[j][i], c, x[i]);
        }
    }
    for (int j = 0; j < V::ROWS; j++)
        for (int i = 0; i < N; i++) V::store(out + j * ldo + i * V::W, sum[j][i]);
}

// One tile's work: its rows, and the pages laid out so far.
template <class A>
struct Tiling {
    static constexpr int N = V::BLOCK;
    static constexpr int64_t CHUNK = TileRoom::CHUNK;

    const Prompt& p;
    const Tile& t;
    const TileRoom r;
    const int64_t many, low, high;  // rows, and slots that any of them sees
    int64_t filled = 0;             // slots laid out

    Tiling(const Prompt& prompt, const Tile& tile, float* scratch)
        : p(prompt),
          t(tile),
          r(prompt, tile.to - tile.from, scratch),
          many((tile.to - tile.from) * prompt.group()),
          low(least(tile.from)),
          high(prompt.first + tile.to) {}

    // the first slot that a row sees
    int64_t least(int64_t row) const {
        const int64_t from = p.first + row - p.window + 1;
        return p.window && from > p.begin ? from : p.begin;
    }
    int64_t head(int64_t m) const { return (t.from + m / p.group()) * p.heads + t.lane * p.group() + m % p.group(); }

    void load() {
        const int64_t units = p.dim / A::UNIT;
        for (int64_t m = 0; m < r.many; m++) {
            float *sums = r.sums + m * p.dim, *total = r.totals + m * V::W;
            for (int64_t i = 0; i < p.dim; i++) sums[i] = 0.0f;
            for (int64_t i = 0; i < V::W; i++) total[i] = 0.0f;
            r.tops[m] = -1e30f;
            if (m >= many) {
                for (int64_t i = 0; i < units; i++) r.queries[m * units + i] = 0.0f;
                continue;
            }
            const int64_t h = head(m);
            A::narrow(p.queries + h * p.dim, p.dim, A::FOLD, r.queries + m * units);
            if (!t.first) {
                for (int64_t i = 0; i < p.dim; i++) sums[i] = p.out[h * p.dim + i];
                total[0] = p.totals[h];
                r.tops[m] = p.tops[h];
            } else if (p.sinks) {
                total[0] = 1.0f;
                r.tops[m] = p.sinks[h % p.heads] * A::FOLD;
            }
        }
    }

    void save() {
        for (int64_t m = 0; m < many; m++) {
            const int64_t h = head(m);
            const float* sums = r.sums + m * p.dim;
            float *out = p.out + h * p.dim, total = r.totals[m * V::W];
            p.totals[h] = total;
            p.tops[h] = r.tops[m];
            V::F factor = V::set(t.last ? 1.0f / total : 1.0f);
            for (int64_t i = 0; i < p.dim; i += V::W) V::store(out + i, V::mul(V::load(sums + i), factor));
        }
    }

    // Whether the tile's rows read a page. What holds their own block's positions is always read.
    bool reads(int64_t n, int64_t slot) const {
        if (slot + p.page <= low || slot >= high) return false;
        if (!p.chosen) return true;
        const int64_t blocks = (p.rows + p.chosen_rows - 1) / p.chosen_rows, block = t.from / p.chosen_rows;
        if (slot + p.page > p.first + block * p.chosen_rows) return true;
        return p.chosen[(t.lane * blocks + block) * p.pages + n] != 0;
    }

    void lay(const Segment& s, int64_t n, int64_t slot) {
        const int64_t here = s.ids ? s.ids[n * p.lanes + t.lane] : n * p.lanes + t.lane;
        const int64_t bytes = page_bytes(s.kind, p.dim * p.page), ld = r.width;
        auto at = [](const uint16_t* scales, int64_t i) { return scales ? scales + i : nullptr; };
        const int64_t channel = here * p.dim, token = here * p.page * s.groups;
        open(s.kind, s.keys + here * bytes, p.dim, p.page, at(s.key_min, channel), at(s.key_step, channel), 1, r);
        if (p.half) turn_back(p, s.start + n, r.opened);
        for (int64_t d = 0; d < p.dim; d += A::UNIT)
            A::units(r.opened + d * p.page, p.page, r.keys + d / A::UNIT * ld + filled);
        open(s.kind, s.values + here * bytes, p.page, p.dim, at(s.value_min, token), at(s.value_step, token), s.groups,
             r);
        for (int64_t k = 0; k < p.page; k++)  // what nobody sees may be NaN, which weight 0 would not silence
            if (slot + k < low || slot + k >= high)
                for (int64_t d = 0; d < p.dim; d++) r.opened[k * p.dim + d] = 0.0f;
        for (int64_t k = 0; k < p.page; k += A::UNIT)
            A::units(r.opened + k * p.dim, p.dim, r.values + (filled + k) / A::UNIT * p.dim);
        for (int64_t k = 0; k < p.page; k += V::W) r.starts[(filled + k) / V::W] = slot + k;
        filled += p.page;
    }

    void run() {
        load();
        for (int64_t i = 0; i < t.count; i++) {
            const Segment& s = t.segments[i];
            for (int64_t n = 0; n < s.pages; n++) {
                const int64_t slot = p.base + (s.start + n) * p.page;
                if (!reads(s.start + n, slot)) continue;
                if (filled + p.page > r.width) pass();
                lay(s, n, slot);
            }
            settle();
        }
        save();
    }

    // Segments that come in one reading or in several give the same numbers: nothing is in the middle between two.
    void settle() {
        pass();
        for (int64_t m = 0; m < many; m++) {
            float *total = r.totals + m * V::W, sum = V::sum(V::load(total));
            for (int64_t i = 0; i < V::W; i++) total[i] = i ? 0.0f : sum;
        }
    }

    // All rows over what is laid out.
    void pass() {
        if (filled == 0) return;
        const int64_t chunks = (filled + CHUNK - 1) / CHUNK;
        for (int64_t v = filled / V::W; v < chunks * N; v++) r.starts[v] = FAR;
        for (int64_t m = 0; m < many; m += V::ROWS) {
            const int64_t last = m + V::ROWS < many ? m + V::ROWS - 1 : many - 1;
            const int64_t from = t.from + m / p.group(), to = t.from + last / p.group();
            int64_t begin = 0, end = 0;  // chunks that some row sees
            for (int64_t c = 0; c < chunks; c++) {
                const int64_t* start = r.starts + c * N;
                if (start[0] > p.first + to) break;
                int64_t greatest = start[N - 1];
                for (int i = N - 2; greatest == FAR; i--) greatest = start[i];
                if (greatest + V::W <= least(from)) {
                    begin = c + 1;
                    continue;
                }
                end = c + 1;
                const bool whole = start[N - 1] + V::W - 1 <= p.first + from && start[0] >= least(to);
                score(m, c, whole);
            }
            if (begin >= end) continue;
            const int64_t to_slot = end * CHUNK < filled ? end * CHUNK : filled;
            const int64_t row = begin * CHUNK / A::UNIT, steps = to_slot / A::UNIT - row, lda = r.width / A::UNIT;
            const float *weights = r.weights + row, *values = r.values + row * p.dim;
            float* sums = r.sums + m * p.dim;
            int64_t d = 0;
            for (; d + N * V::W <= p.dim; d += N * V::W)
                product<A, N, true>(weights, lda, values + d, p.dim, steps, sums + d, p.dim);
            if constexpr (N > 2)
                for (; d + 2 * V::W <= p.dim; d += 2 * V::W)
                    product<A, 2, true>(weights, lda, values + d, p.dim, steps, sums + d, p.dim);
            for (; d < p.dim; d += V::W)
                product<A, 1, true>(weights, lda, values + d, p.dim, steps, sums + d, p.dim);
        }
        filled = 0;
    }

    // Weights of ROWS rows from m on and one chunk.
    void score(int64_t m, int64_t c, bool whole) {
        const int64_t units = p.dim / A::UNIT;
        product<A, N, false>(r.queries + m * units, units, r.keys + c * CHUNK, r.width, units, r.scores, CHUNK);
        for (int j = 0; j < V::ROWS; j++) {
            V::F x[N];
            for (int i = 0; i < N; i++) x[i] = V::load(r.scores + j * CHUNK + i * V::W);
            if (p.softcap != 0) {
                V::F cap = V::set(p.softcap * A::FOLD);
                for (int i = 0; i < N; i++) x[i] = V::mul(cap, tanhf(V::div(x[i], cap)));
            }
            if (!whole) {
                const int64_t row = t.from + (m + j) / p.group(), from = least(row), to = p.first + row + 1;
                for (int i = 0; i < N; i++) {
                    const int64_t start = r.starts[c * N + i];
                    x[i] = V::only(x[i], from - start, to - start);
                }
            }
            float *top = r.tops + m + j, *total = r.totals + (m + j) * V::W;
            V::F most = x[0];
            for (int i = 1; i < N; i++) most = V::max(most, x[i]);
            if (__builtin_expect(V::above(most, *top + 8.0f), 0)) raise(m, j, c, V::most(most));
            V::F less = V::set(*top), sum = V::load(total);
            for (int i = 0; i < N; i++) {
                x[i] = A::exp(V::sub(x[i], less));
                sum = V::add(sum, x[i]);
            }
            V::store(total, sum);
            A::template store<N>(x, r.weights + (j * r.width + c * CHUNK) / A::UNIT);
        }
    }

    // What is subtracted from a row's scores is raised only where weights would grow large: sums are rarely touched.
    void raise(int64_t m, int64_t j, int64_t c, float top) {
        float *sums = r.sums + (m + j) * p.dim, *total = r.totals + (m + j) * V::W;
        V::F factor = A::exp(V::set(r.tops[m + j] - top));
        r.tops[m + j] = top;
        V::store(total, V::mul(V::load(total), factor));
        for (int64_t d = 0; d < p.dim; d += V::W) V::store(sums + d, V::mul(V::load(sums + d), factor));
        A::scale(r.weights + j * r.width / A::UNIT, c * CHUNK, factor);  // these are no part of the sums yet
    }
};

inline void prefill(const Prompt& p, const Tile& t, float* scratch) {
#if defined(__AVX512BF16__)
    if (p.narrow && p.pairs) return Tiling<Brain>(p, t, scratch).run();
#endif
#if defined(__AVX512F__)
    if (p.narrow) return Tiling<Wide>(p, t, scratch).run();
#endif
    Tiling<Exact>(p, t, scratch).run();
}

}  // namespace
