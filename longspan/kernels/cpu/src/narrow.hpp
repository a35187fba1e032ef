// Attention of a few rows over whole pages of codes where the processor multiplies bytes. Rows of a page are interleaved
// on their way into the registers, so that one product sums over four of them. Codes stay bytes: what they are
// multiplied by is split into two bytes, 15 bits in all, which is finer than bfloat16. Weights of a page count from the
// page's own maximum. What is done once for each query is done for four queries side by side, since it is mostly sums
// and maxima across a register. Dense pages wait for memory, not for products, and are read in float32.
#pragma once

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
namespace {
namespace narrow {

using I = __m512i;
typedef int Ints __attribute__((vector_size(64)));
constexpr float FINE = 16256.0f;  // the largest number in two bytes: 127 · 128 and a rest of −64 … 63
constexpr float LOG2E = 1.44269504f;

// Whether nibbles of so many columns fill 64 bytes in one of the layouts below.
inline bool whole(int64_t columns) { return columns == 64 || columns % 128 == 0; }

// Whether pages of this shape are for these kernels.
inline bool serves(const Attention& a, const Segment& s) {
    if (!a.narrow || a.page % 64 || a.dim % 64 || a.page > 256 || a.dim > 256) return false;
    const bool coded = s.kind == Kind::int8 || s.kind == Kind::int4;
    const bool fit = s.kind == Kind::int8 || (whole(a.page) && whole(a.dim));
    return coded && fit && s.groups <= 8 && (s.groups & (s.groups - 1)) == 0 && a.dim / s.groups % 32 == 0;
}

// The sum, or the maximum, of each of four vectors, in the first four numbers.
template <V::F (*OP)(V::F, V::F)>
V::F reduce_four(const V::F (&x)[4]) {
    const V::F p = OP(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const V::F q = OP(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    const __m512d u = _mm512_castps_pd(p), v = _mm512_castps_pd(q);
    V::F r = OP(_mm512_castpd_ps(_mm512_unpacklo_pd(u, v)), _mm512_castpd_ps(_mm512_unpackhi_pd(u, v)));
    r = OP(r, _mm512_shuffle_f32x4(r, r, 0x4e));
    return OP(r, _mm512_shuffle_f32x4(r, r, 0xb1));
}

inline I bytes(const void* p) { return _mm512_loadu_si512(p); }

// How the codes of 64 bytes lie: one to the byte; two to the byte, in rows of 64 bytes or more; or in rows of 32, two
// rows at a time.
enum class Layout { BYTES, NIBBLES, PAIRS };

inline Layout layout(const Segment& s, int64_t columns) {
    if (s.kind == Kind::int8) return Layout::BYTES;
    return columns == 64 ? Layout::PAIRS : Layout::NIBBLES;
}

// What the rows of a matrix are multiplied by: for each query the high bytes of [rows, groups], then the low ones. Those
// of together(groups) rows lie group by group; where rows come in pairs, even rows before odd ones in each eight.
struct Coefficients {
    int8_t* bytes;
    int64_t rows, groups;

    static constexpr int64_t together(int64_t groups) { return groups == 8 ? 4 : 16 / groups; }
    int64_t size() const { return 2 * rows * groups; }  // of a query
    int8_t* of(int64_t m) const { return bytes + m * size(); }
    // where four rows of a group begin
    int64_t at(int64_t group, int64_t row) const {
        const int64_t n = together(groups);
        return row / n * n * groups + group * n + row % n;
    }
};

// Bytes of 16/groups rows, row by row, in the order of Coefficients.
struct Order {
    alignas(16) int8_t from[16];
    constexpr Order(int groups, bool pairs) : from() {
        const int rows = 16 / groups;
        for (int row = 0; row < rows; row++)
            for (int c = 0; c < groups; c++) {
                const int at = pairs && rows >= 8 ? row / 8 * 8 + row % 2 * 4 + row % 8 / 2 : row;
                from[c * rows + at] = static_cast<int8_t>(row * groups + c);
            }
    }
};
constexpr Order ORDERS[2][4] = {{{1, false}, {2, false}, {4, false}, {8, false}},
                                {{1, true}, {2, true}, {4, true}, {8, true}}};

// 64 numbers of at most FINE, rounded, as two bytes each; `order` of each 16 of them.
inline void split(const V::F (&x)[4], I order, bool eight, int8_t* high, int8_t* low) {
    I whole[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) whole[i] = _mm512_cvtps_epi32(x[i]);
    const I some[2] = {_mm512_packs_epi32(whole[0], whole[1]), _mm512_packs_epi32(whole[2], whole[3])};
    I top[2], rest[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        top[i] = _mm512_srai_epi16(_mm512_add_epi16(some[i], _mm512_set1_epi16(64)), 7);
        rest[i] = _mm512_sub_epi16(some[i], _mm512_slli_epi16(top[i], 7));
    }
    // packed within quarters: four numbers of each vector in turn
    const I back = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    auto put = [&](I y, int8_t* to) {
        y = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(back, y), order);
        if (eight) {  // two rows in a quarter, and four belong together
            const I words = _mm512_setr_epi32(0x080000, 0x090001, 0x0a0002, 0x0b0003, 0x0c0004, 0x0d0005, 0x0e0006,
                                              0x0f0007, 0x180010, 0x190011, 0x1a0012, 0x1b0013, 0x1c0014, 0x1d0015,
                                              0x1e0016, 0x1f0017);
            y = _mm512_permutexvar_epi16(words, y);
        }
        _mm512_storeu_si512(to, y);
    };
    put(_mm512_packs_epi16(top[0], top[1]), high);
    put(_mm512_packs_epi16(rest[0], rest[1]), low);
}

// What is read soon. Lines are asked for a few at a time, all the while that a page is worked on: memory would idle
// between bursts, and a core waits on few lines at once.
struct Lines {
    const char *at, *end;

    template <int N>
    void ask() {
        if (at >= end) return;
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) __builtin_prefetch(at + 64 * i);
        at += 64 * N;
    }
};

// out [M, ldo] = out · past[m] + now[m] · coefficients [M, rows] times rows of a matrix; past null: bias[m] in place of
// out · past.
struct Sum {
    const char* matrix;
    int64_t columns, stride;  // stride: bytes of a row
    Coefficients by;
    const float *past, *now, *bias;
    float* out;
    int64_t ldo;

    void put(int64_t m, int64_t column, I sums) const {
        float* to = out + m * ldo + column;
        V::F before = past ? V::mul(V::load(to), V::set(past[m])) : V::set(bias[m]);
        V::store(to, V::fma(_mm512_cvtepi32_ps(sums), V::set(now[m]), before));
    }
    void put(int64_t m, int64_t column, __m256i sums) const {
        float* to = out + m * ldo + column;
        const __m256 before = past ? _mm256_mul_ps(_mm256_loadu_ps(to), _mm256_set1_ps(past[m])) : _mm256_set1_ps(bias[m]);
        _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(now[m]), before));
    }
    int64_t group(int64_t column) const { return column * by.groups / columns; }
};

inline I four(const int8_t* rows) {
    int32_t x;
    __builtin_memcpy(&x, rows, 4);
    return _mm512_set1_epi32(x);
}

// Four rows for the first half of a vector, four for the second.
inline I four(const int8_t* first, const int8_t* second) {
    int32_t y;
    __builtin_memcpy(&y, second, 4);
    return _mm512_mask_set1_epi32(four(first), 0xff00, y);
}

// Sums of M queries over all rows, for 64 bytes of each from byte `at` on. N of the vectors that these make: all of them,
// or those of one `part`. ONE: all columns have the same coefficients. Codes of quarter L of vector (h, i) are those of
// the bytes 16·L + 8·h + 4·i and the three after it.
template <Layout L, int M, int N, bool ONE>
void products(const Sum& x, int64_t m, int64_t at, int part, Lines& soon) {
    constexpr bool BYTES = L == Layout::BYTES, PAIRS = L == Layout::PAIRS;
    constexpr int ROWS = PAIRS ? 8 : 4, SETS = !BYTES && N == 4 && !ONE ? 2 : 1;
    constexpr int LINES = (BYTES ? 2 : 1) * (N / 2);
    const int half = N == 4 && BYTES ? 0 : part & 1;
    const bool upper = !BYTES && N == 2 && part >= 2;
    // columns of the lower nibbles, or of one part, and of the upper ones
    const int64_t begins[2] = {upper ? x.columns / 2 + at : at, x.columns / 2 + at};
    const int8_t *first[SETS], *second[SETS];
#pragma GCC unroll 2
    for (int s = 0; s < SETS; s++) {
        first[s] = x.by.of(m) + x.by.at(x.group(begins[s]), 0);
        second[s] = PAIRS ? first[s] + 4 : x.by.of(m) + x.by.at(x.group(begins[s] + 32), 0);
    }
    const int64_t size = x.by.size(), low = size / 2, together = Coefficients::together(x.by.groups);
    const int64_t block = together * x.by.groups;
    // numbers of their own type: as __m512i the compiler keeps these in memory
    Ints top[M][N], rest[M][N];
#pragma GCC unroll 6
    for (int j = 0; j < M; j++)
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) top[j][i] = rest[j][i] = Ints{};
    const char* row = x.matrix + at;
    const int64_t stride = PAIRS ? 64 : x.stride;
    Lines lines = soon;
    for (int64_t k = 0; k < x.by.rows; k += ROWS, row += 4 * stride) {
        lines.ask<LINES>();
        I r[4], codes[N];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) r[i] = bytes(row + i * stride);
        auto interleave = [&](int h, I* to) {
            const I a = h ? _mm512_unpackhi_epi8(r[0], r[1]) : _mm512_unpacklo_epi8(r[0], r[1]);
            const I b = h ? _mm512_unpackhi_epi8(r[2], r[3]) : _mm512_unpacklo_epi8(r[2], r[3]);
            to[0] = _mm512_unpacklo_epi16(a, b);
            to[1] = _mm512_unpackhi_epi16(a, b);
        };
        const I nibble = _mm512_set1_epi8(15);
        interleave(half, codes);
        if constexpr (BYTES && N == 4) interleave(1, codes + 2);
        if constexpr (!BYTES && N == 4) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                codes[2 + i] = _mm512_and_si512(_mm512_srli_epi16(codes[i], 4), nibble);
                codes[i] = _mm512_and_si512(codes[i], nibble);
            }
        }
        if constexpr (!BYTES && N == 2) {
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++)
                codes[i] = _mm512_and_si512(upper ? _mm512_srli_epi16(codes[i], 4) : codes[i], nibble);
        }
        const int64_t p = ONE ? k : k / together * block + k % together;
#pragma GCC unroll 6
        for (int j = 0; j < M; j++)
#pragma GCC unroll 2
            for (int s = 0; s < SETS; s++) {
                const int8_t *f = first[s] + j * size + p, *g = second[s] + j * size + p;
                const I u = ONE && !PAIRS ? four(f) : four(f, g);
                const I v = ONE && !PAIRS ? four(f + low) : four(f + low, g + low);
#pragma GCC unroll 4
                for (int i = s * N / SETS; i < (s + 1) * N / SETS; i++) {
                    top[j][i] = (Ints)_mm512_dpbusd_epi32((I)top[j][i], codes[i], u);
                    rest[j][i] = (Ints)_mm512_dpbusd_epi32((I)rest[j][i], codes[i], v);
                }
            }
    }
    soon = lines;
#pragma GCC unroll 6
    for (int j = 0; j < M; j++) {
        I s[N];
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) s[i] = (I)(top[j][i] * 128 + rest[j][i]);
        if constexpr (BYTES && N == 4) {
            const I a = _mm512_shuffle_i32x4(s[0], s[1], 0x44), b = _mm512_shuffle_i32x4(s[0], s[1], 0xee);
            const I c = _mm512_shuffle_i32x4(s[2], s[3], 0x44), d = _mm512_shuffle_i32x4(s[2], s[3], 0xee);
            x.put(m + j, at, _mm512_shuffle_i32x4(a, c, 0x88));
            x.put(m + j, at + 16, _mm512_shuffle_i32x4(a, c, 0xdd));
            x.put(m + j, at + 32, _mm512_shuffle_i32x4(b, d, 0x88));
            x.put(m + j, at + 48, _mm512_shuffle_i32x4(b, d, 0xdd));
        } else {
#pragma GCC unroll 2
            for (int n = 0; n < N / 2; n++) {
                const int64_t column = begins[n] + 8 * half;
                const I a = _mm512_shuffle_i32x4(s[2 * n], s[2 * n + 1], 0x44);  // quarters 0, 1 of each
                const I b = _mm512_shuffle_i32x4(s[2 * n], s[2 * n + 1], 0xee);
                if constexpr (PAIRS) {
                    const I c = _mm512_add_epi32(a, b), d = _mm512_shuffle_i32x4(c, c, 0xd8);
                    x.put(m + j, column, _mm512_castsi512_si256(d));
                    x.put(m + j, column + 16, _mm512_extracti64x4_epi64(d, 1));
                } else {
                    const I c = _mm512_shuffle_i32x4(a, a, 0xd8), d = _mm512_shuffle_i32x4(b, b, 0xd8);
                    x.put(m + j, column, _mm512_castsi512_si256(c));
                    x.put(m + j, column + 16, _mm512_extracti64x4_epi64(c, 1));
                    x.put(m + j, column + 32, _mm512_castsi512_si256(d));
                    x.put(m + j, column + 48, _mm512_extracti64x4_epi64(d, 1));
                }
            }
        }
    }
}

template <Layout L, bool ONE>
void multiply(const Sum& x, int64_t many, Lines& soon) {
    const int64_t width = L == Layout::BYTES ? x.columns : L == Layout::PAIRS ? 64 : x.columns / 2;
    for (int64_t m = 0, blocks = (many + 5) / 6; blocks > 0; blocks--) {
        const int64_t size = (many - m + blocks - 1) / blocks;
        const int parts = (L == Layout::BYTES ? 1 : 2) * (size > 3 ? 2 : 1);
        for (int64_t at = 0; at < width; at += 64)
            for (int part = 0; part < parts; part++) switch (size) {
                    case 1: products<L, 1, 4, ONE>(x, m, at, part, soon); break;
                    case 2: products<L, 2, 4, ONE>(x, m, at, part, soon); break;
                    case 3: products<L, 3, 4, ONE>(x, m, at, part, soon); break;
                    case 4: products<L, 4, 2, ONE>(x, m, at, part, soon); break;
                    case 5: products<L, 5, 2, ONE>(x, m, at, part, soon); break;
                    default: products<L, 6, 2, ONE>(x, m, at, part, soon); break;
                }
        m += size;
    }
}

inline void multiply(const Sum& x, Layout layout, int64_t many, Lines& soon) {
    const bool one = x.by.groups == 1;
    switch (layout) {
        case Layout::BYTES: return one ? multiply<Layout::BYTES, true>(x, many, soon) : multiply<Layout::BYTES, false>(x, many, soon);
        case Layout::PAIRS: return one ? multiply<Layout::PAIRS, true>(x, many, soon) : multiply<Layout::PAIRS, false>(x, many, soon);
        default: return one ? multiply<Layout::NIBBLES, true>(x, many, soon) : multiply<Layout::NIBBLES, false>(x, many, soon);
    }
}

// A page of one lane, and four queries of it at most at a time.
struct Page {
    const Attention& a;
    const Segment& s;
    const Room& r;
    int64_t at;  // entry of the slab
    float* tops;
    Coefficients keys, values;
    I key_order, value_order;
    float value_most;  // the greatest step of the values

    Page(const Attention& attention, const Segment& segment, const Room& room, int64_t entry, float* t)
        : a(attention),
          s(segment),
          r(room),
          at(entry),
          tops(t),
          keys{reinterpret_cast<int8_t*>(r.opened), a.dim, 1},
          values{reinterpret_cast<int8_t*>(r.weights), a.page, s.groups} {
        auto order = [&](int64_t groups, int64_t columns) {
            const Order& x = ORDERS[layout(s, columns) == Layout::PAIRS][__builtin_ctzll(static_cast<uint64_t>(groups))];
            return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(x.from)));
        };
        key_order = order(1, a.page);
        value_order = order(s.groups, a.dim);
        V::F most = V::set(1e-30f);
        const uint16_t* step = s.value_step + at * a.page * s.groups;
        for (int64_t i = 0; i < a.page * s.groups; i += V::W) most = V::max(most, V::f16(step + i));
        value_most = V::most(most);
    }

    // Coefficients of the keys' codes, and what the keys' minima add.
    template <int M>
    void fold(int64_t m, Lines& soon) const {
        const uint16_t *low = s.key_min + at * a.dim, *step = s.key_step + at * a.dim;
        const float* q = r.turned + m * a.dim;
        float* scaled = r.scaled + m * a.dim;
        V::F sum[4], most[4];
        for (int j = 0; j < 4; j++) sum[j] = V::set(0.0f), most[j] = V::set(1e-30f);
        for (int64_t d = 0; d < a.dim; d += V::W) {
            const V::F least = V::f16(low + d), by = V::f16(step + d);
#pragma GCC unroll 4
            for (int j = 0; j < M; j++) {
                const V::F x = V::load(q + j * a.dim + d), y = V::mul(x, by);
                sum[j] = V::fma(x, least, sum[j]);
                most[j] = V::max(most[j], _mm512_abs_ps(y));
                V::store(scaled + j * a.dim + d, y);
            }
        }
        // more than M numbers: what follows is written later, or is spare
        V::store(r.bias + m, reduce_four<V::add>(sum));
        const V::F greatest = reduce_four<V::max>(most);
        V::store(r.now + m, V::mul(greatest, V::set(1 / FINE)));
        V::store(r.fine + m, V::div(V::set(FINE), greatest));
        for (int j = 0; j < M; j++) {
            const V::F fine = V::set(r.fine[m + j]);
            for (int64_t d = 0; d < a.dim; d += 64) {
                V::F x[4];
                for (int i = 0; i < 4; i++) x[i] = V::mul(V::load(scaled + j * a.dim + d + i * V::W), fine);
                soon.ask<4>();
                split(x, key_order, false, keys.of(m + j) + d, keys.of(m + j) + a.dim + d);
            }
        }
    }

    // Scores become weights from the page's maximum on, and those coefficients of the values' codes. `factor` is what sums
    // so far are to be multiplied by, `now` those of this page.
    template <int M>
    void weigh(int64_t m, Lines& soon) const {
        const __mmask16 some = static_cast<__mmask16>((1u << M) - 1);
        V::F most[4];
        for (int j = 0; j < 4; j++) most[j] = V::set(-__builtin_inff());
        for (int j = 0; j < M; j++) {
            float* w = r.scores + (m + j) * a.page;
            for (int64_t i = 0; i < a.page; i += V::W) {
                V::F x = V::load(w + i);
                if (a.softcap != 0) {
                    x = V::mul(V::set(a.softcap), tanhf(V::div(x, V::set(a.softcap))));
                    V::store(w + i, x);
                }
                most[j] = V::max(most[j], x);
            }
        }
        const V::F fold = V::set(LOG2E), here = reduce_four<V::max>(most), before = _mm512_maskz_loadu_ps(some, tops + m);
        const V::F top = V::max(here, before);
        _mm512_mask_storeu_ps(tops + m, some, top);
        V::store(r.factor + m, exp2(V::mul(V::sub(before, top), fold)));
        V::store(r.now + m, exp2(V::mul(V::sub(here, top), fold)));
        V::store(r.fine + m, V::mul(here, fold));
        for (int j = 0; j < M; j++) {
            float *w = r.scores + (m + j) * a.page, *total = r.total + (m + j) * V::W;
            const V::F less = V::set(-r.fine[m + j]);
            V::F sum = V::set(0.0f);
            for (int64_t i = 0; i < a.page; i += V::W) {
                const V::F x = exp2(V::fma(V::load(w + i), fold, less));
                V::store(w + i, x);
                sum = V::add(sum, x);
            }
            V::store(total, V::fma(V::load(total), V::set(r.factor[m + j]), V::mul(sum, V::set(r.now[m + j]))));
        }
        const int log = __builtin_ctzll(static_cast<uint64_t>(s.groups));
        const int64_t n = a.page * s.groups;
        const uint16_t *low = s.value_min + at * n, *step = s.value_step + at * n;
        const V::F fine = V::set(FINE / value_most);
        V::F sums[M];
        for (int j = 0; j < M; j++) sums[j] = V::set(0.0f);
        for (int64_t i = 0; i < n; i += 64) {
            V::F least[4], by[4];
            for (int v = 0; v < 4; v++) {
                least[v] = V::f16(low + i + v * V::W);
                by[v] = V::mul(V::f16(step + i + v * V::W), fine);
            }
#pragma GCC unroll 4
            for (int j = 0; j < M; j++) {
                const float* w = r.scores + (m + j) * a.page;
                V::F x[4];
                for (int v = 0; v < 4; v++) {
                    x[v] = V::spread(w + ((i + v * V::W) >> log), log);
                    sums[j] = V::fma(x[v], least[v], sums[j]);
                    x[v] = V::mul(x[v], by[v]);
                }
                soon.ask<4>();
                split(x, value_order, s.groups == 8, values.of(m + j) + i, values.of(m + j) + n + i);
            }
        }
        for (int j = 0; j < M; j++) {
            float* shift = r.shift + (m + j) * Room::shifts(a);
            V::store(shift, V::fma(V::load(shift), V::set(r.factor[m + j]), V::mul(sums[j], V::set(r.now[m + j]))));
        }
        V::store(r.now + m, V::mul(V::load(r.now + m), V::set(value_most / FINE)));
    }
};

// A whole page, which all rows see.
inline void page(const Attention& a, const Segment& s, const Room& r, const Place& here, const Place* next,
                 float* part) {
    const int64_t many = a.many();
    const Page page(a, s, r, here.at, part + many * a.dim);
    const int64_t size = next ? page_bytes(s.kind, a.page * a.dim) : 0;
    Lines keys{next ? next->keys : nullptr, next ? next->keys + size : nullptr};
    Lines rows{next ? next->rows : nullptr, next ? next->rows + size : nullptr};
    const int64_t key_bytes = page_bytes(s.kind, a.page), value_bytes = page_bytes(s.kind, a.dim);
    for (int64_t m = 0; m < many; m += 4) switch (many - m) {
            case 1: page.fold<1>(m, keys); break;
            case 2: page.fold<2>(m, keys); break;
            case 3: page.fold<3>(m, keys); break;
            default: page.fold<4>(m, keys);
        }
    multiply({here.keys, a.page, key_bytes, page.keys, nullptr, r.now, r.bias, r.scores, a.page},
             layout(s, a.page), many, keys);
    for (int64_t m = 0; m < many; m += 4) switch (many - m) {
            case 1: page.weigh<1>(m, rows); break;
            case 2: page.weigh<2>(m, rows); break;
            case 3: page.weigh<3>(m, rows); break;
            default: page.weigh<4>(m, rows);
        }
    multiply({here.rows, a.dim, value_bytes, page.values, r.factor, r.now, nullptr, part, a.dim},
             layout(s, a.dim), many, rows);
}

}  // namespace narrow
}  // namespace
#endif
