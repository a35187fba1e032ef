// Numbers become codes 0…2^bits − 1 between a minimum and a maximum of their group, both float16 and rounded outwards:
// bit for bit what `longspan.cache.formats.affine` says in torch.
#pragma once

namespace {
namespace sealing {

using few_rows::narrow_f16, few_rows::wide;

inline float wide_f16(uint16_t x) { return wide(Kind::f16, reinterpret_cast<const char*>(&x), 0); }

// The largest float16 ≤ x, for x within ±65504.
inline uint16_t below(float x) {
    const uint16_t rounded = narrow_f16(x);
    const auto bits = static_cast<int16_t>(rounded);
    int order = bits < 0 ? -32768 - bits : bits;  // float16 numbers in their order; −0 and 0 are both 0
    order -= wide_f16(rounded) > x;
    return static_cast<uint16_t>(order < 0 ? -32768 - order : order);
}

// The smallest float16 ≥ x.
inline uint16_t above(float x) { return below(-x) ^ 0x8000; }

// Codes of n numbers, their minimum and their Δ. False: one of them is NaN or beyond float16's range.
inline bool group(const float* x, int64_t n, int top, uint8_t* codes, uint16_t* low, uint16_t* step) {
    constexpr float LIMIT = 65504.0f;
    const int64_t whole = n / V::W * V::W;
    float least = x[0], most = x[0];
    bool fine = true;
    if (whole) {
        const V::F zero = V::set(0.0f);
        V::F high = V::load(x), deep = V::sub(zero, high), size = zero;
        for (int64_t i = 0; i < whole; i += V::W) {
            const V::F a = V::load(x + i), b = V::sub(zero, a);
            high = V::max(a, high);
            deep = V::max(b, deep);
            size = V::add(size, V::sub(a, a));  // NaN where a is none or infinite
        }
        most = V::most(high);
        least = -V::most(deep);
        fine = V::sum(size) == 0.0f;
    }
    for (int64_t i = whole; i < n; i++) {
        fine &= x[i] == x[i];
        most = x[i] > most ? x[i] : most;
        least = x[i] < least ? x[i] : least;
    }
    if (!fine || !(least >= -LIMIT && most <= LIMIT)) return false;
    *low = below(least);
    const float base = wide_f16(*low);
    *step = above((most - base) / static_cast<float>(top));
    const float width = wide_f16(*step), divisor = width == 0.0f ? 1.0f : width;
    const V::F from = V::set(base), by = V::set(divisor), zero = V::set(0.0f), last = V::set(static_cast<float>(top));
    for (int64_t i = 0; i < whole; i += V::W) {
        V::F code = V::round(V::div(V::sub(V::load(x + i), from), by));
        code = V::max(code, zero);
        V::bytes(V::less(code, last, code, last), codes + i);
    }
    for (int64_t i = whole; i < n; i++) {
        const float code = __builtin_rintf((x[i] - base) / divisor);
        codes[i] = static_cast<uint8_t>(code < 0 ? 0 : code > static_cast<float>(top) ? top : code);
    }
    return true;
}

size_t scratch(const Sealing& s) { return static_cast<size_t>(2 * s.columns + 2 * PAD); }

// All of one page. False: a number that cannot be stored.
bool page(const Sealing& s, int64_t n, float* memory) {
    const int64_t unit = few_rows::bytes_of(s.kind), width = s.columns / s.groups, top = (1 << s.bits) - 1;
    const int64_t half = (s.columns + 1) / 2, quarter = s.rows / 4;
    float* x = memory;
    auto* codes = reinterpret_cast<uint8_t*>(memory + s.columns + PAD);
    for (int64_t r = 0; r < s.rows; r++) {
        const int64_t row = n * s.rows + r;
        const char* from = s.x + row * s.columns * unit;
        const int64_t whole = s.columns / V::W * V::W;
        for (int64_t i = 0; i < whole; i += V::W) V::store(x + i, many_rows::vector(s.kind, from + i * unit));
        for (int64_t i = whole; i < s.columns; i++) x[i] = wide(s.kind, from, i);
        for (int64_t g = 0; g < s.groups; g++)
            if (!group(x + g * width, width, static_cast<int>(top), codes + g * width, s.low + row * s.groups + g,
                       s.step + row * s.groups + g))
                return false;
        if (s.bits == 8) {
            __builtin_memcpy(s.codes + row * s.columns, codes, static_cast<size_t>(s.columns));
        } else if (s.bits == 4) {  // two of a row to the byte
            uint8_t* out = s.codes + row * half;
            for (int64_t i = 0; i < half; i++) {
                const int high = half + i < s.columns ? codes[half + i] : 0;
                out[i] = static_cast<uint8_t>(codes[i] | high << 4);
            }
        } else {  // four rows to the byte
            uint8_t* out = s.codes + (n * quarter + r % quarter) * s.columns;
            const int place = static_cast<int>(2 * (r / quarter));
            for (int64_t i = 0; i < s.columns; i++) {
                const int before = place ? out[i] : 0;
                out[i] = static_cast<uint8_t>(before | codes[i] << place);
            }
        }
    }
    return true;
}

}  // namespace sealing
}  // namespace
