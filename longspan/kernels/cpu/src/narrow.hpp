// Attention of a few rows over whole pages of nibbles where the processor multiplies bytes. Four rows of a page are
// interleaved on their way into the registers, so that one product sums over them. Codes stay bytes: what they are
// multiplied by is split into two bytes, 15 bits in all, which is finer than bfloat16. Weights of a page count from the
// page's own maximum. Other formats wait for memory, not for products, and are read in float32.
#pragma once

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
namespace {
namespace narrow {

using I = __m512i;
typedef int Ints __attribute__((vector_size(64)));
constexpr float FINE = 16256.0f;  // the largest number in two bytes: 127 · 128 and a rest of −64 … 63
constexpr float LOG2E = 1.44269504f;

// Whether pages of this shape are for these kernels.
inline bool serves(const Attention& a, const Segment& s) {
    if (!a.narrow || a.page % 64 || a.dim % 64 || a.page > 256 || a.dim > 256) return false;
    return s.kind == Kind::int4 && s.groups <= 8 && (s.groups & (s.groups - 1)) == 0 && a.dim / s.groups % 32 == 0;
}

// 2^x within 7.5e-5 of it
inline V::F exp2(V::F x) {
    V::F rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    V::F p = V::fma(V::set(0.07802452f), rest, V::set(0.22606716f));
    p = V::fma(p, rest, V::set(0.69583354f));
    p = V::fma(p, rest, V::set(0.99992522f));
    return _mm512_scalef_ps(p, x);
}

inline I bytes(const void* p) { return _mm512_loadu_si512(p); }

// Rows of one 32-byte piece: i and i + 4 of eight.
inline I two(const char* row, int64_t stride) {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first),
                              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 4 * stride)), 1);
}

// Four coefficients for the first half of a vector, the next four for the second.
inline I eight(const int8_t* p) {
    int32_t first, second;
    __builtin_memcpy(&first, p, 4);
    __builtin_memcpy(&second, p + 4, 4);
    return _mm512_mask_set1_epi32(_mm512_set1_epi32(first), 0xff00, second);
}

// 16 numbers of at most FINE, rounded, as two bytes each.
inline void split(V::F x, int8_t* high, int8_t* low) {
    const I whole = _mm512_cvtps_epi32(x), top = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(64)), 7);
    const I rest = _mm512_sub_epi32(whole, _mm512_slli_epi32(top, 7));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(top));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(rest));
}

// out [M, ldo] = out · past[m] + now[m] · coefficients [M, rows] times rows of a matrix; past null: bias[m] in place of
// out · past.
struct Sum {
    const char* rows;
    int64_t count, stride;  // rows, and bytes of one
    const float *past, *now, *bias;
    float* out;
    int64_t ldo;
    const char* next;  // read soon: as many rows as long; null: nothing

    void put(int64_t m, int64_t column, V::F x) const {
        float* to = out + m * ldo + column;
        V::F before = past ? V::mul(V::load(to), V::set(past[m])) : V::set(bias ? bias[m] : 0.0f);
        V::store(to, V::fma(x, V::set(now[m]), before));
    }
    void ahead(int64_t row, int64_t rows_) const {
        for (int64_t i = row * stride; i < (row + rows_) * stride; i += 64) __builtin_prefetch(next + i);
    }
};

// Sums over eight rows lie in two halves, four columns in each quarter of them.
inline void join(const Sum& x, int64_t m, int64_t column, const I (&s)[4]) {
    I p = _mm512_add_epi32(_mm512_shuffle_i32x4(s[0], s[1], 0x44), _mm512_shuffle_i32x4(s[0], s[1], 0xee));
    I q = _mm512_add_epi32(_mm512_shuffle_i32x4(s[2], s[3], 0x44), _mm512_shuffle_i32x4(s[2], s[3], 0xee));
    x.put(m, column, _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(p, q, 0x88)));
    x.put(m, column + 16, _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(p, q, 0xdd)));
}

// 32 columns of codes: those in the lower halves, or the UPPER ones, of the bytes from byte `at` on. Row m of the coefficients [rows] is at high + m·ld, and
// low + m·ld.
template <int M, bool UPPER>
void quads(const Sum& x, const int8_t* high, const int8_t* low, int64_t ld, int64_t m, int64_t at, bool fetch) {
    // numbers of their own type: as __m512i the compiler keeps these in memory
    Ints top[M][4], rest[M][4];
#pragma GCC unroll 4
    for (int j = 0; j < M; j++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) top[j][i] = rest[j][i] = Ints{};
    for (int64_t k = 0; k < x.count; k += 8) {
        if (fetch) x.ahead(k, 8);
        const char* row = x.rows + k * x.stride + at;
        I r[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            r[i] = two(row + i * x.stride, x.stride);
            r[i] = _mm512_and_si512(UPPER ? _mm512_srli_epi16(r[i], 4) : r[i], _mm512_set1_epi8(15));
        }
        const I a = _mm512_unpacklo_epi8(r[0], r[1]), b = _mm512_unpacklo_epi8(r[2], r[3]);
        const I c = _mm512_unpackhi_epi8(r[0], r[1]), d = _mm512_unpackhi_epi8(r[2], r[3]);
        const I codes[4] = {_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b), _mm512_unpacklo_epi16(c, d),
                            _mm512_unpackhi_epi16(c, d)};
#pragma GCC unroll 4
        for (int j = 0; j < M; j++) {
            const I u = eight(high + (m + j) * ld + k), v = eight(low + (m + j) * ld + k);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                top[j][i] = (Ints)_mm512_dpbusd_epi32((I)top[j][i], codes[i], u);
                rest[j][i] = (Ints)_mm512_dpbusd_epi32((I)rest[j][i], codes[i], v);
            }
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < M; j++) {
        I s[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) s[i] = (I)(top[j][i] * 128 + rest[j][i]);
        join(x, m + j, at + (UPPER ? x.stride : 0), s);
    }
}

template <int M>
void some_codes(const Sum& x, const int8_t* a, int64_t groups, int64_t m) {
    // coefficients: for each row and group count high bytes, then as many low ones
    const int64_t ld = 2 * groups * x.count, columns = 2 * x.stride;
    for (int64_t at = 0; at < x.stride; at += 32) {
        const int8_t* p = a + at * groups / columns * 2 * x.count;
        quads<M, false>(x, p, p + x.count, ld, m, at, x.next && at == 0 && m == 0);
        p = a + (x.stride + at) * groups / columns * 2 * x.count;
        quads<M, true>(x, p, p + x.count, ld, m, at, false);
    }
}

inline void codes(const Sum& x, const int8_t* a, int64_t groups, int64_t many) {
    for (int64_t m = 0, blocks = (many + 2) / 3; blocks > 0; blocks--) {
        const int64_t size = (many - m + blocks - 1) / blocks;
        if (size == 1) some_codes<1>(x, a, groups, m);
        if (size == 2) some_codes<2>(x, a, groups, m);
        if (size == 3) some_codes<3>(x, a, groups, m);
        m += size;
    }
}

// Scores become weights from the page's maximum on: past is what sums so far are to be multiplied by, now those of this
// page.
struct Soft {
    V::F past, now;

    Soft(const Attention& a, const Room& r, int64_t m, float* tops) {
        float* w = r.scores + m * a.page;
        V::F most = V::set(-__builtin_inff()), cap = V::set(a.softcap);
        for (int64_t i = 0; i < a.page; i += V::W) {
            V::F x = V::load(w + i);
            if (a.softcap != 0) {
                x = V::mul(cap, tanhf(V::div(x, cap)));
                V::store(w + i, x);
            }
            most = V::max(most, x);
        }
        const float here = V::most(most), top = here > tops[m] ? here : tops[m];
        past = exp2(V::set((tops[m] - top) * LOG2E));
        now = exp2(V::set((here - top) * LOG2E));
        tops[m] = top;
        const V::F fold = V::set(LOG2E), less = V::set(-here * LOG2E);
        V::F sum = V::set(0.0f);
        for (int64_t i = 0; i < a.page; i += V::W) {
            V::F x = exp2(V::fma(V::load(w + i), fold, less));
            V::store(w + i, x);
            sum = V::add(sum, x);
        }
        float* total = r.total + m * V::W;
        V::store(total, V::fma(V::load(total), past, V::mul(sum, now)));
    }
};

// Every other number of n pairs: the first of each, and the second.
inline void apart(const float* from, int64_t n, float* first, float* second) {
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const I odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t i = 0; i < n; i += V::W) {
        V::F p = V::load(from + 2 * i), q = V::load(from + 2 * i + V::W);
        V::store(first + i, _mm512_permutex2var_ps(p, even, q));
        V::store(second + i, _mm512_permutex2var_ps(p, odd, q));
    }
}

// [n, groups] → [groups, n], groups being 2, 4 or 8; `spare` is as large.
inline void by_group(float* x, int64_t n, int64_t groups, float* spare) {
    for (int64_t done = 1; done < groups; done *= 2)
        for (int64_t part = 0; part < done; part++) {
            // numbers of groups that are alike in the bits so far lie together
            const int64_t size = n * groups / done;
            float* from = x + part * size;
            apart(from, size / 2, spare, spare + size / 2);
            for (int64_t i = 0; i < size; i += V::W) V::store(from + i, V::load(spare + i));
        }
}
inline int64_t reversed(int64_t c, int64_t groups) {
    int64_t out = 0;
    for (int64_t bit = 1; bit < groups; bit *= 2) out = 2 * out + ((c & bit) != 0);
    return out;
}

// A whole page, which all rows see.
inline void page(const Attention& a, const Segment& s, const Room& r, const Place& here, const Place* next,
                 float* part) {
    const char *next_keys = next ? next->keys : nullptr, *next_rows = next ? next->rows : nullptr;
    float* tops = part + a.many() * a.dim;
    const int64_t many = a.many();
    float *now = r.low + a.page * a.dim - 2 * many, *past = now + many;
    const int64_t groups = s.groups, n = a.page * groups, ld = Room::shifts(a);
    auto *q = reinterpret_cast<int8_t*>(r.opened), *w = reinterpret_cast<int8_t*>(r.weights);
    const uint16_t *low = s.key_min + here.at * a.dim, *step = s.key_step + here.at * a.dim;
    for (int64_t m = 0; m < many; m++) {
        V::F sum = V::set(0.0f), most = V::set(1e-30f);
        float* scaled = r.scaled + m * a.dim;
        for (int64_t d = 0; d < a.dim; d += V::W) {
            V::F x = V::load(r.turned + m * a.dim + d), y = V::mul(x, V::f16(step + d));
            sum = V::fma(x, V::f16(low + d), sum);
            most = V::max(most, _mm512_abs_ps(y));
            V::store(scaled + d, y);
        }
        r.bias[m] = V::sum(sum);
        const float greatest = V::most(most);
        const V::F fine = V::set(FINE / greatest);
        now[m] = greatest / FINE;
        int8_t* to = q + m * 2 * a.dim;
        for (int64_t d = 0; d < a.dim; d += V::W) split(V::mul(V::load(scaled + d), fine), to + d, to + a.dim + d);
    }
    codes({here.keys, a.dim, a.page / 2, nullptr, now, r.bias, r.scores, a.page, next_keys}, q, 1, many);
    widen(s.value_min + here.at * n, n, r.low);
    widen(s.value_step + here.at * n, n, r.step);
    V::F most = V::set(1e-30f);
    for (int64_t i = 0; i < n; i += V::W) most = V::max(most, V::load(r.step + i));
    const float greatest = V::most(most);
    const V::F fine = V::set(FINE / greatest);
    if (groups > 1) {
        by_group(r.low, a.page, groups, r.step + n);
        by_group(r.step, a.page, groups, r.step + n);
    }
    for (int64_t m = 0; m < many; m++) {
        const Soft soft(a, r, m, tops);
        const float* x = r.scores + m * a.page;
        past[m] = _mm512_cvtss_f32(soft.past);
        now[m] = _mm512_cvtss_f32(soft.now) * greatest / FINE;
        float* shift = r.shift + m * ld;
        V::F all = V::mul(V::load(shift), soft.past);
        for (int64_t c = 0; c < groups; c++) {
            const int64_t at = reversed(c, groups) * a.page;
            int8_t* to = w + (m * groups + c) * 2 * a.page;
            V::F sum = V::set(0.0f);
            for (int64_t i = 0; i < a.page; i += V::W) {
                V::F weight = V::load(x + i);
                sum = V::fma(weight, V::load(r.low + at + i), sum);
                split(V::mul(V::mul(weight, V::load(r.step + at + i)), fine), to + i, to + a.page + i);
            }
            // lane c: others gather for other groups, and are summed at the end
            all = _mm512_mask_add_ps(all, static_cast<__mmask16>(1u << c), all,
                                     V::set(V::sum(sum) * _mm512_cvtss_f32(soft.now)));
        }
        V::store(shift, all);
    }
    codes({here.rows, a.page, a.dim / 2, past, now, nullptr, part, a.dim, next_rows}, w, groups, many);
}

}  // namespace narrow
}  // namespace
#endif
