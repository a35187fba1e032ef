// Rows of activations and of matrices, whatever they hold, as vectors of float32 numbers.
#pragma once

namespace {

// Arrays side by side, each from a new cache line on; without memory only what they take is counted.
struct Shelf {
    float* memory;
    int64_t used = 0;

    explicit Shelf(float* floats) : memory(floats) {
        if (memory) memory += (16 - reinterpret_cast<uintptr_t>(memory) / sizeof(float) % 16) % 16;
    }
    float* take(int64_t n) {
        float* place = memory ? memory + used : nullptr;
        used += (n + 15) / 16 * 16;
        return place;
    }
};

namespace many_rows {

using few_rows::bytes_of, few_rows::padded, few_rows::wide;

// A vector of a row from channel k on, zeros past the last channel.
template <class L>
struct Numbers {
    static int64_t stride(int64_t columns) { return L::bytes(columns); }
    static int64_t bytes(int64_t columns) { return L::bytes(columns); }  // of them, as far as they are side by side
    static V::F read(const char* row, int64_t k, int64_t columns) {
        V::F x;
        if (k + V::W <= columns) {
            L::template read<1>(row, k, &x);
        } else {
            char rest[4 * V::W] = {};
            __builtin_memcpy(rest, row + L::bytes(k), static_cast<size_t>(L::bytes(columns - k)));
            L::template read<1>(rest, 0, &x);
        }
        return x;
    }
};

template <int BITS>
struct Opened {
    using Codes = few_rows::Codes<BITS>;
    static int64_t stride(int64_t columns) { return Codes::stride(columns); }
    static int64_t bytes(int64_t columns) { return columns / Codes::GROUP * Codes::BYTES; }
    static V::F read(const char* row, int64_t k, int64_t columns) {  // past the last channel as the codes say
        const int64_t group = k / Codes::GROUP, at = k % Codes::GROUP, half = Codes::GROUP / 2;
        const auto* codes = reinterpret_cast<const uint8_t*>(row + group * Codes::BYTES);
        const float scale = wide(Kind::bf16, row + padded(columns) / Codes::GROUP * Codes::BYTES, group);
        V::F code;
        if constexpr (BITS == 8) {
            code = V::u8(codes + at);
        } else {
            V::F low, high;
            V::nibbles(codes + at % half, low, high);
            code = at < half ? low : high;
        }
        return V::fma(code, V::set(scale), V::set(scale * -(1 << (BITS - 1))));
    }
};

template <class Use>
void with(Kind kind, Use use) {
    switch (kind) {
        case Kind::f32: return use(Numbers<Float>());
        case Kind::bf16: return use(Numbers<Half<true>>());
        case Kind::f16: return use(Numbers<Half<false>>());
        case Kind::int8: return use(Opened<8>());
        case Kind::int4: return use(Opened<4>());
    }
}

// A vector of numbers; kinds of numbers alone.
inline V::F vector(Kind kind, const char* p) {
    V::F x;
    if (kind == Kind::f32)
        Float::read<1>(p, 0, &x);
    else if (kind == Kind::bf16)
        Half<true>::read<1>(p, 0, &x);
    else
        Half<false>::read<1>(p, 0, &x);
    return x;
}

// x[i][j] becomes x[j][i]
inline void transpose(V::F (&x)[V::W]) {
    for (int stage = 1; stage < V::W; stage *= 2) {
        V::F y[V::W];
        for (int i = 0; i < V::W / 2; i++) V::zip(x[i], x[i + V::W / 2], y[2 * i], y[2 * i + 1]);
        for (int i = 0; i < V::W; i++) x[i] = y[i];
    }
}

}  // namespace many_rows
}  // namespace
