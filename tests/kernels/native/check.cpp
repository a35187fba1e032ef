// The kernels on edge shapes, against sums in double, on buffers that end where their contents end. Built with
// sanitizers by `make sanitize`; exits with 1 at the first difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "linear_run.hpp"
#include "prompt.hpp"
#include "run.hpp"
#include "tape.hpp"

using namespace longspan;

namespace {

std::mt19937 source(0);

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(source); }
int64_t among(std::initializer_list<int64_t> all) { return all.begin()[source() % all.size()]; }

// A float16 number that is small, positive and exact.
uint16_t half(double x) {
    int exponent;
    int mantissa = static_cast<int>(std::frexp(x, &exponent) * 2048);
    return static_cast<uint16_t>((exponent + 14) << 10 | (mantissa & 1023));
}
double wide(uint16_t h) {
    double size = h & 0x7c00 ? std::ldexp(1024 + (h & 1023), (h >> 10 & 31) - 25) : std::ldexp(h & 1023, -24);
    return h & 0x8000 ? -size : size;
}

struct Drawn {
    Kind kind;
    int64_t count, dim, page, groups;
    std::vector<char> keys, values;
    std::vector<uint16_t> key_min, key_step, value_min, value_step;

    Drawn(Kind k, int64_t n, int64_t d, int64_t p, int64_t g) : kind(k), count(n), dim(d), page(p), groups(g) {
        int64_t numbers = n * d * p;
        int64_t bytes = k == Kind::f32    ? 4 * numbers
                        : k == Kind::int8 ? numbers
                        : k == Kind::int4 ? numbers / 2
                                          : 2 * numbers;
        for (auto* to : {&keys, &values}) {
            to->resize(static_cast<size_t>(bytes));
            for (int64_t i = 0; i < numbers; i++) put(*to, i);
        }
        for (auto* to : {&key_min, &key_step}) to->resize(static_cast<size_t>(n * d));
        for (auto* to : {&value_min, &value_step}) to->resize(static_cast<size_t>(n * p * g));
        for (auto* to : {&key_min, &value_min})
            for (auto& x : *to) x = half(uniform(0.1, 1)) | (source() % 2 ? 0x8000 : 0);
        for (auto* to : {&key_step, &value_step})
            for (auto& x : *to) x = half(uniform(0.001, k == Kind::int8 ? 0.01 : 0.1));
    }

    void put(std::vector<char>& to, int64_t i) {
        float x = static_cast<float>(uniform(-1, 1));
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        uint16_t narrow =
            kind == Kind::bf16 ? static_cast<uint16_t>(bits >> 16) : half(std::fabs(x) + 0.001) | (x < 0 ? 0x8000 : 0);
        switch (kind) {
            case Kind::f32: std::memcpy(&to[static_cast<size_t>(4 * i)], &x, 4); break;
            case Kind::bf16:
            case Kind::f16: std::memcpy(&to[static_cast<size_t>(2 * i)], &narrow, 2); break;
            case Kind::int8: to[static_cast<size_t>(i)] = static_cast<char>(source()); break;
            case Kind::int4: to[static_cast<size_t>(i / 2)] = static_cast<char>(source()); break;
        }
    }

    // the number in row r and column c of the matrix [rows, columns] of a page
    double number(const std::vector<char>& from, int64_t id, int64_t r, int64_t rows, int64_t c,
                  int64_t columns) const {
        int64_t i = (id * rows + r) * columns + c;
        float x;
        uint16_t h;
        switch (kind) {
            case Kind::f32: std::memcpy(&x, &from[static_cast<size_t>(4 * i)], 4); return x;
            case Kind::int8: return static_cast<unsigned char>(from[static_cast<size_t>(i)]);
            case Kind::int4: {
                int64_t at = (id * rows + r) * (columns / 2) + c % (columns / 2);
                int byte = static_cast<unsigned char>(from[static_cast<size_t>(at)]);
                return c < columns / 2 ? byte & 15 : byte >> 4;
            }
            default: std::memcpy(&h, &from[static_cast<size_t>(2 * i)], 2);
        }
        if (kind == Kind::f16) return wide(h);
        uint32_t bits = static_cast<uint32_t>(h) << 16;
        std::memcpy(&x, &bits, 4);
        return x;
    }
    bool coded() const { return kind == Kind::int8 || kind == Kind::int4; }
    double key(int64_t id, int64_t d, int64_t p) const {
        double x = number(keys, id, d, dim, p, page);
        size_t at = static_cast<size_t>(id * dim + d);
        return coded() ? wide(key_min[at]) + wide(key_step[at]) * x : x;
    }
    double value(int64_t id, int64_t p, int64_t d) const {
        double x = number(values, id, p, page, d, dim);
        size_t at = static_cast<size_t>((id * page + p) * groups + d / (dim / groups));
        return coded() ? wide(value_min[at]) + wide(value_step[at]) * x : x;
    }
};

void fail(const char* what, const Level* level, double got, double expected) {
    std::printf("%s, %s: %.8g where %.8g is right\n", what, level->name, got, expected);
    std::exit(1);
}

template <class T>
void read(T& reader, const Drawn& all, const std::vector<int64_t>& ids, int64_t lanes, int64_t pages) {
    auto segment = [&](int64_t from, int64_t many) {
        reader.add({all.kind, many, ids.data() + from * lanes, all.keys.data(), all.values.data(), all.key_min.data(),
                    all.key_step.data(), all.value_min.data(), all.value_step.data(), all.groups, from});
    };
    segment(0, pages / 2);
    if (source() % 2) reader.read();
    segment(pages / 2, pages - pages / 2);
}

// few: for the kernels that a query turns in; others take as many rows as there are.
void attention(bool few) {
    int64_t dim = among({16, 32, 64, 80, 96, 128, 256}), page = among({16, 32, 64, 128}), lanes = among({1, 2, 3});
    int64_t g = among({1, 2, 3, 5, 8}), pages = among({1, 2, 3, 9, 20}), offset = among({0, 7, 15}),
            rows = few ? among({1, 2, 5, 8}) : among({1, 9, 13, 40});
    if (rows > (pages - 1) * page + offset + 1) rows = 1;
    auto kind = static_cast<Kind>(source() % 5);
    int64_t width = among({8, 16, 32, 64, dim}), groups = dim % width ? 1 : dim / width;
    Drawn all(kind, 2 * pages * lanes, dim, page, groups);
    std::vector<int64_t> ids(static_cast<size_t>(pages * lanes));
    for (auto& id : ids) id = static_cast<int64_t>(source() % static_cast<unsigned>(all.count));
    int64_t halves = among({0, dim / 2, dim / 4});
    std::vector<float> q(static_cast<size_t>(rows * g * lanes * dim)), cos(static_cast<size_t>(pages * halves)),
        sin(cos), sinks;
    for (auto& x : q) x = static_cast<float>(uniform(-0.5, 0.5));
    for (size_t i = 0; i < cos.size(); i++) {
        double angle = uniform(0, 6);
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
    }
    if (source() % 2)
        for (int64_t i = 0; i < g * lanes; i++) sinks.push_back(static_cast<float>(uniform(-2, 2)));
    int64_t base = -(pages - 1) * page, first = offset + 1 - rows, window = among({0, 0, 1, 20, 300});
    int64_t begin = std::min(base + among({0, 3}), first);
    float cap = static_cast<float>(among({0, 0, 3}));
    int64_t size = few ? 0 : among({0, 1, 4, 64}), blocks = size ? (rows + size - 1) / size : 0;
    std::vector<uint8_t> chosen(static_cast<size_t>(lanes * blocks * pages));
    for (auto& x : chosen) x = source() % 2;
    Attention work{q.data(), rows,   g * lanes,  lanes,      dim, page, halves, first,
                   base,     begin,  window,     cos.data(), sin.data(), cap, false};
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < g * lanes; h++) {
            std::vector<double> sum(static_cast<size_t>(dim));
            double total = sinks.empty() ? 0 : std::exp(static_cast<double>(sinks[static_cast<size_t>(h)]));
            const float* x = &q[static_cast<size_t>((r * g * lanes + h) * dim)];
            for (int64_t slot = std::max(begin, window ? first + r - window + 1 : begin); slot <= first + r; slot++) {
                int64_t n = (slot - base) / page, p = (slot - base) % page,
                        id = ids[static_cast<size_t>(n * lanes + h / g)];
                if (size && base + (n + 1) * page <= first + r / size * size &&
                    !chosen[static_cast<size_t>((h / g * blocks + r / size) * pages + n)])
                    continue;
                double score = 0;
                for (int64_t d = 0; d < dim; d++) {
                    double t = x[d];
                    int64_t i = d % std::max<int64_t>(halves, 1);
                    if (d < 2 * halves) {
                        double c = cos[static_cast<size_t>(n * halves + i)],
                               s = sin[static_cast<size_t>(n * halves + i)];
                        t = d < halves ? x[i] * c - x[halves + i] * s : x[halves + i] * c + x[i] * s;
                    }
                    score += t * all.key(id, d, p);
                }
                if (cap != 0) score = cap * std::tanh(score / cap);
                total += std::exp(score);
                for (int64_t d = 0; d < dim; d++) sum[static_cast<size_t>(d)] += std::exp(score) * all.value(id, p, d);
            }
            for (double s : sum) expected.push_back(s / total);
        }
    for (const Level* level : available())
        for (int threads : {1, 3}) {
            const float* least = sinks.empty() ? nullptr : sinks.data();
            std::vector<float> out(expected.size());
            const bool narrow = source() % 2, pairs = source() % 2;
            if (few) {
                work.narrow = narrow;
                Decode decode(level, threads);
                std::vector<float> again(out.size());
                for (float* to : {again.data(), out.data()}) {  // two sequences at once
                    decode.work(work, least, to);
                    read(decode, all, ids, lanes, pages);
                }
                decode.finish();
            } else {
                Prefill prefill(level, threads, {q.data(),    rows,    g * lanes,     lanes,      dim,
                                                 page,        halves,  first,         base,       begin,
                                                 window,      cos.data(), sin.data(), cap,        narrow, pairs,
                                                 least,       size ? chosen.data() : nullptr, size, pages,
                                                 out.data(),  nullptr, nullptr});
                read(prefill, all, ids, lanes, pages);
                prefill.finish();
            }
            const double bound = !narrow ? 2e-5 : few ? 1e-3 : 4e-2;  // 15 bits, or bfloat16's eight
            for (size_t i = 0; i < out.size(); i++)
                if (!(std::fabs(out[i] - expected[i]) <= bound * (1 + std::fabs(expected[i]))))
                    fail(few ? "attention" : "attention of many rows", level, out[i], expected[i]);
        }
}

void scores() {
    int64_t dim = among({16, 64, 80, 128}), slots = among({16, 64, 128}), lanes = among({1, 3});
    int64_t pages = among({1, 2, 65, 130}), rows = 1 + static_cast<int64_t>(source() % 19), quarter = dim / 4;
    std::vector<float> q(static_cast<size_t>(lanes * rows * dim));
    for (auto& x : q) x = static_cast<float>(uniform(-1, 1));
    std::vector<char> codes(static_cast<size_t>(lanes * pages * quarter * slots));
    for (auto& x : codes) x = static_cast<char>(source());
    std::vector<uint16_t> low(static_cast<size_t>(lanes * pages * dim)), step(low);
    for (auto& x : low) x = half(uniform(0.1, 1)) | (source() % 2 ? 0x8000 : 0);
    for (auto& x : step) x = half(uniform(0.01, 1));
    for (const Level* level : available()) {
        std::vector<float> out(static_cast<size_t>(lanes * rows * pages));
        score(level, 3,
              {q.data(), lanes, rows, pages, dim, slots, codes.data(), reinterpret_cast<char*>(low.data()),
               reinterpret_cast<char*>(step.data()), pages * quarter * slots, quarter * slots, 2 * pages * dim, 2 * dim,
               2 * pages * dim, 2 * dim, out.data()});
        for (int64_t i = 0; i < lanes * rows * pages; i += 7) {
            int64_t lane = i / (rows * pages), row = i / pages % rows, n = lane * pages + i % pages;
            double best = -1e30;
            for (int64_t p = 0; p < slots; p++) {
                double sum = 0;
                for (int64_t d = 0; d < dim; d++) {
                    size_t at = static_cast<size_t>(n * dim + d);
                    int byte =
                        static_cast<unsigned char>(codes[static_cast<size_t>((n * quarter + d % quarter) * slots + p)]);
                    sum += q[static_cast<size_t>((lane * rows + row) * dim + d)] *
                           (wide(low[at]) + wide(step[at]) * (byte >> (d / quarter * 2) & 3));
                }
                best = std::max(best, sum);
            }
            if (!(std::fabs(out[static_cast<size_t>(i)] - best) <= 1e-4))
                fail("scores", level, out[static_cast<size_t>(i)], best);
        }
    }
}

// Numbers of one kind in memory.
struct Numbers {
    Kind kind;
    std::vector<char> held;
    int64_t unit() const { return kind == Kind::f32 ? 4 : 2; }
    Numbers(Kind k, int64_t n, bool drawn) : kind(k), held(static_cast<size_t>(n * (k == Kind::f32 ? 4 : 2))) {
        for (int64_t i = 0; drawn && i < n; i++) {
            const float x = static_cast<float>(uniform(-1, 1));
            uint32_t bits;
            std::memcpy(&bits, &x, 4);
            uint16_t h = static_cast<uint16_t>(kind == Kind::bf16 ? bits >> 16 : half(std::fabs(x) + 0.001) | (x < 0) << 15);
            if (kind == Kind::f32)
                std::memcpy(held.data() + 4 * i, &x, 4);
            else
                std::memcpy(held.data() + 2 * i, &h, 2);
        }
    }
    // a number that has no mantissa, or is none
    void put(int64_t i, float x) {
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        const uint16_t h = static_cast<uint16_t>(kind == Kind::bf16 ? bits >> 16 : std::isnan(x) ? 0x7e00 : 0x7c00);
        if (kind == Kind::f32)
            std::memcpy(held.data() + 4 * i, &x, 4);
        else
            std::memcpy(held.data() + 2 * i, &h, 2);
    }
    double at(int64_t i) const {
        float x;
        uint16_t h;
        if (kind == Kind::f32) {
            std::memcpy(&x, held.data() + 4 * i, 4);
            return x;
        }
        std::memcpy(&h, held.data() + 2 * i, 2);
        if (kind == Kind::f16) return wide(h);
        const uint32_t bits = static_cast<uint32_t>(h) << 16;
        std::memcpy(&x, &bits, 4);
        return x;
    }
};

void products() {
    const int64_t columns = among({1, 7, 33, 64, 100, 576}), n = among({1, 3, 64, 131}), groups = (columns + 63) / 64;
    const int64_t rows = 1 + static_cast<int64_t>(source() % (source() % 2 ? Activations::FEW : 140));
    const auto stored = static_cast<Kind>(source() % 5);
    const bool coded = stored == Kind::int8 || stored == Kind::int4;
    const Kind kind = coded ? static_cast<Kind>(source() % 3) : stored;
    const int64_t code = stored == Kind::int8 ? 64 : 32, stride = groups * (code + 2);
    const Numbers x(kind, rows * columns, true), bias(kind, n, true);
    const Numbers dense[2] = {{kind, n * columns, true}, {kind, n * columns, true}};
    std::vector<char> codes[2];
    for (auto& matrix : codes) {
        matrix.resize(static_cast<size_t>(n * stride));
        for (auto& c : matrix) c = static_cast<char>(source());
        const uint16_t scale = 0x3c00;  // 1/128
        for (int64_t i = 0; i < n * groups; i++)
            std::memcpy(matrix.data() + i / groups * stride + groups * code + 2 * (i % groups), &scale, 2);
    }
    auto weight = [&](int j, int64_t row, int64_t k) {
        if (!coded) return dense[j].at(row * columns + k);
        const int byte = static_cast<unsigned char>(codes[j][static_cast<size_t>(row * stride + k / 64 * code + k % 64 % code)]);
        return (stored == Kind::int8 ? byte - 128 : (k % 64 < 32 ? byte & 15 : byte >> 4) - 8) / 128.0;
    };
    // What a result may differ by where activations become bytes: half a step of a group's scale for each.
    auto rounding = [&](int j, int64_t t, int64_t row) {
        double all = 0;
        for (int64_t g = 0; g < groups; g++) {
            double top = 0, size = 0;
            for (int64_t k = g * 64; k < std::min(columns, g * 64 + 64); k++) {
                top = std::max(top, std::fabs(x.at(t * columns + k)));
                size += std::fabs(weight(j, row, k));
            }
            all += top / 254 * size;
        }
        return all;
    };
    for (const Level* level : available())
        for (Act act : {Act::none, Act::silu}) {
            Linear layer(level, kind, stored, columns, act);
            layer.add({coded ? codes[0].data() : dense[0].held.data(), bias.held.data(), n});
            layer.add({coded ? codes[1].data() : dense[1].held.data(), nullptr, n});
            Numbers out[2] = {{kind, rows * n, false}, {kind, rows * n, false}};
            char* to[2] = {out[0].held.data(), out[1].held.data()};
            layer.run(3, rows, x.held.data(), to);
            for (int64_t i = 0; i < rows * n; i++) {
                double sum[2] = {bias.at(i % n), 0}, off[2] = {0, 0};
                for (int j = 0; j < 2 && rows > Activations::FEW && layer.in_bytes(); j++) off[j] = rounding(j, i / n, i % n);
                for (int j = 0; j < 2; j++)
                    for (int64_t k = 0; k < columns; k++) sum[j] += weight(j, i % n, k) * x.at(i / n * columns + k);
                if (act == Act::silu) {
                    const double gate = sum[0] / (1 + std::exp(-sum[0]));
                    off[0] = 1.1 * off[0] * (std::fabs(sum[1]) + off[1]) + std::fabs(gate) * off[1];  // a slope of 1.1 at most
                    sum[0] = gate * sum[1];
                }
                for (int j = 0; j < (act == Act::none ? 2 : 1); j++)
                    if (!(std::fabs(out[j].at(i) - sum[j]) <=
                          off[j] + (kind == Kind::f32 ? 1e-4 : 1e-2) * (1 + std::fabs(sum[j]))))
                        fail("products", level, out[j].at(i), sum[j]);
            }
            if (!coded) continue;
            Numbers opened(kind, n * columns, false);
            layer.open(3, 0, n, opened.held.data());
            for (int64_t i = 0; i < n * columns; i++)
                if (opened.at(i) != weight(0, i / columns, i % columns))
                    fail("open", level, opened.at(i), weight(0, i / columns, i % columns));
        }
}

// Codes of groups of numbers, against what they stand for.
void seals() {
    const int bits = static_cast<int>(among({2, 4, 8}));
    const int64_t pages = among({1, 3}), rows = 4 * among({1, 2, 16}), groups = among({1, 2, 5});
    const int64_t columns = groups * among({1, 3, 16, 32, 37}), half_row = (columns + 1) / 2;
    const auto kind = static_cast<Kind>(source() % 3);
    const Numbers x(kind, pages * rows * columns, true);
    const int64_t width = bits == 8 ? columns : bits == 4 ? half_row : columns;
    for (const Level* level : available()) {
        std::vector<uint8_t> codes(static_cast<size_t>(pages * (bits == 2 ? rows / 4 : rows) * width));
        std::vector<uint16_t> low(static_cast<size_t>(pages * rows * groups)), step(low);
        const Sealing work{kind, pages, rows, columns, groups, bits, x.held.data(), codes.data(), low.data(), step.data()};
        if (!seal(level, 3, work)) fail("seal", level, 0, 0);
        for (int64_t i = 0; i < pages * rows * columns; i++) {
            const int64_t column = i % columns, row = i / columns % rows, page = i / columns / rows;
            int code;
            if (bits == 8)
                code = codes[static_cast<size_t>(i)];
            else if (bits == 4)
                code = codes[static_cast<size_t>((page * rows + row) * half_row + column % half_row)] >>
                           (column < half_row ? 0 : 4) & 15;
            else
                code = codes[static_cast<size_t>((page * (rows / 4) + row % (rows / 4)) * columns + column)] >>
                           row / (rows / 4) * 2 & 3;
            const auto at = static_cast<size_t>(i / columns * groups + column * groups / columns);
            const double opened = wide(low[at]) + wide(step[at]) * code;
            if (!(std::fabs(opened - x.at(i)) <= 0.5001 * std::fabs(wide(step[at])) + 1e-6))
                fail("seal", level, opened, x.at(i));
        }
        Numbers odd = x;
        odd.put(pages * rows * columns - 1, NAN);
        Sealing other = work;
        other.x = odd.held.data();
        if (seal(level, 3, other)) fail("a number that cannot be sealed", level, 0, 0);
    }
}

// Attention of many rows over gathered slots, and what it gave to each.
void slots() {
    const int64_t lanes = among({1, 2}), g = among({1, 3, 4}), dim = among({16, 64, 80}), rows = among({1, 17, 70});
    const int64_t size = among({1, 63, 64, 200}), width = (size + 63) / 64 * 64, heads = lanes * g, page = 16;
    const bool windowed = source() % 2, weighted = source() % 2, first_ones = source() % 2;
    const float window = static_cast<float>(among({1, 50})), cap = source() % 2 ? 0.0f : 3.0f;
    std::vector<float> q(static_cast<size_t>(rows * heads * dim)), keys(static_cast<size_t>(lanes * size * dim)), at;
    for (auto& n : q) n = static_cast<float>(uniform(-1, 1)) / 4;
    for (auto& n : keys) n = static_cast<float>(uniform(-1, 1));
    for (int64_t r = 0; r < rows; r++) at.push_back(static_cast<float>(r));
    const auto kind = static_cast<Kind>(source() % 3);
    const Numbers values(kind, lanes * size * dim, true);
    std::vector<float> late(static_cast<size_t>(lanes * width), Slotted::NOTHING), early(late), bias(late.size()), learned;
    for (int64_t lane = 0; lane < lanes; lane++)
        for (int64_t k = 0; k < size; k++) {
            if (source() % 8 == 0) continue;
            const auto i = static_cast<size_t>(lane * width + k);
            late[i] = static_cast<float>(static_cast<int>(source() % 140) - 70);
            early[i] = source() % 8 ? late[i] : Slotted::NOTHING;
            bias[i] = static_cast<float>(uniform(0, 2));
        }
    for (int64_t h = 0; first_ones && h < heads; h++) learned.push_back(static_cast<float>(uniform(-1, 1)));
    const int64_t since = rows / 2, pages = (size + page - 1) / page;
    std::vector<double> out(q.size()), mass(static_cast<size_t>(lanes * size)), recent(mass.size() * static_cast<size_t>(g));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t lane = h / g;
            std::vector<double> p(static_cast<size_t>(size));
            double total = first_ones ? std::exp(learned[static_cast<size_t>(h)]) : 0;
            for (int64_t k = 0; k < size; k++) {
                const auto i = static_cast<size_t>(lane * width + k);
                if (late[i] > static_cast<float>(r)) continue;
                if (windowed && early[i] <= static_cast<float>(r) - window) continue;
                double score = 0;
                for (int64_t d = 0; d < dim; d++)
                    score += static_cast<double>(q[static_cast<size_t>((r * heads + h) * dim + d)]) *
                             keys[static_cast<size_t>((lane * size + k) * dim + d)];
                if (cap != 0) score = cap * std::tanh(score / cap);
                p[static_cast<size_t>(k)] = std::exp(score + (weighted ? bias[i] : 0));
                total += p[static_cast<size_t>(k)];
            }
            for (int64_t k = 0; total > 0 && k < size; k++) {
                const double share = p[static_cast<size_t>(k)] / total;
                for (int64_t d = 0; d < dim; d++)
                    if (share > 0)
                        out[static_cast<size_t>((r * heads + h) * dim + d)] += share * values.at((lane * size + k) * dim + d);
                mass[static_cast<size_t>(lane * size + k)] += share;
                if (r >= since) recent[static_cast<size_t>((lane * g + h % g) * size + k)] += share;
            }
        }
    for (const Level* level : available())
        for (int threads : {1, 3}) {
            std::vector<float> got(q.size()), given(mass.size()), late_ones(recent.size());
            std::vector<int64_t> used(static_cast<size_t>(lanes * pages), -1);
            attend(level, threads,
                   Slotted{q.data(), at.data(), rows, heads, lanes, dim, size, keys.data(), size * dim, dim, kind,
                           values.held.data(), size * dim, dim, late.data(), windowed ? early.data() : nullptr,
                           weighted ? bias.data() : nullptr, window, cap, first_ones ? learned.data() : nullptr, got.data(),
                           given.data(), late_ones.data(), since, used.data(), page, 0.01f, 1, nullptr, nullptr, nullptr,
                           nullptr});
            auto same = [&](const std::vector<float>& mine, const std::vector<double>& right) {
                for (size_t i = 0; i < mine.size(); i++)
                    if (!(std::fabs(mine[i] - right[i]) <= 1e-4 * (1 + std::fabs(right[i]))))
                        fail("slots", level, mine[i], right[i]);
            };
            same(got, out);
            same(given, mass);
            same(late_ones, recent);
            for (int64_t n : used)
                if (n < -1 || n >= rows) fail("the last row that used a page", level, static_cast<double>(n), 0);
        }
}

// Two layers' worth of an array of lanes `from` apart, laid out `to` apart.
template <class T>
std::vector<T> two_layers(const T* x, int64_t lanes, int64_t from, int64_t to) {
    std::vector<T> made;
    for (int64_t lane = 0; lane < 2 * lanes; lane++) {
        const T* first = x + lane % lanes * from;
        for (int64_t i = 0; i < to; i++) made.push_back(i < from ? first[i] : T{});
    }
    return made;
}

// The second of two layers of what eviction left, on a tape, against the same call on its own, which is checked below.
// New keys go to the page `spare`, which nobody reads.
void on_tape(const Level* level, Kept k, Drawn& written, int64_t spare) {
    const int64_t size = k.rows * k.heads * k.dim, slots = k.slots, g = k.group();
    const bool apart = source() % 2;
    const Numbers query(k.kind, size, true), key(k.kind, k.rows * k.lanes * k.dim, true);
    std::vector<float> cos, sin, queries, out(static_cast<size_t>(size)), mass(static_cast<size_t>(k.lanes * slots)),
        recent(static_cast<size_t>(k.heads * slots)), scores(static_cast<size_t>(k.lanes * k.many() * k.width()));
    for (int64_t i = 0; i < 2 * k.lanes * k.rows * k.half; i++) {
        const double angle = uniform(0, 6);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
    }
    for (int64_t i = 0; i < size; i++) {
        const int64_t d = i % k.dim, head = i / k.dim % k.heads, row = i / k.dim / k.heads;
        const int64_t at = ((apart ? (k.lanes + head / g) * k.rows : 0) + row) * k.half + d % std::max<int64_t>(k.half, 1);
        auto x = [&](int64_t j) { return 0.3f * static_cast<float>(query.at(j)); };
        const auto c = d < 2 * k.half ? cos[static_cast<size_t>(at)] : 1, t = d < 2 * k.half ? sin[static_cast<size_t>(at)] : 0;
        queries.push_back(d < k.half ? x(i) * c - x(i + k.half) * t : d < 2 * k.half ? x(i) * c + x(i - k.half) * t : x(i));
    }
    std::vector<int64_t> used(static_cast<size_t>(k.lanes * slots), -1);
    Kept alone = k;
    alone.queries = queries.data();
    alone.out = out.data();
    alone.scores = scores.data();
    alone.mass = mass.data();
    alone.recent = recent.data();
    alone.used = used.data();
    attend(level, 1, alone);

    const auto table = two_layers(k.table, k.lanes, k.columns, k.columns), sealed = two_layers(k.sealed, k.lanes, 1, 1),
               counts = two_layers(k.counts, k.lanes, 1, 1), positions = two_layers(k.positions, k.lanes, k.room, k.room),
               turns = two_layers(k.turns, k.lanes, slots, k.room);
    const auto weights = k.weights ? two_layers(k.weights, k.lanes, k.room, k.room) : std::vector<float>();
    std::vector<float> all_mass(static_cast<size_t>(2 * k.lanes * k.room)), all_recent(static_cast<size_t>(2 * k.heads * k.room));
    std::vector<int64_t> all_used(all_mass.size(), -1), pages(static_cast<size_t>(2 * k.lanes * k.rows), spare), places;
    for (size_t i = 0; i < pages.size(); i++) places.push_back(static_cast<int64_t>(i) % k.rows);
    k.table = table.data();
    k.sealed = sealed.data();
    k.counts = counts.data();
    k.positions = positions.data();
    k.turns = turns.data();
    k.weights = k.weights ? weights.data() : nullptr;
    k.mass = all_mass.data();
    k.recent = all_recent.data();
    k.used = all_used.data();
    k.span = k.room;
    Held held{k.lanes, k.page, false, written.keys.data(), written.values.data(), {}, {}, std::vector<Held::Place>(4)};
    held.keepings.push_back({pages.data(), places.data(), {0, nullptr, nullptr}, {{k, cos.data(), sin.data(), apart}}});
    held.layers[3] = {-1, 0, 1};
    Numbers got(k.kind, size, false);
    Tape tape(level, k.kind);
    tape.attend({3, k.rows, k.heads, k.dim, query.held.data(), key.held.data(), key.held.data(), k.heads * k.dim, k.dim,
                 k.lanes * k.dim, k.dim, k.lanes * k.dim, k.dim, 0.3f, k.softcap, k.learned, got.held.data()});
    if (tape.run(0, 3, &held) != -1) fail("a tape over lanes", level, 0, -1);
    for (int64_t i = 0; i < size; i++) {
        const double wanted = out[static_cast<size_t>(i)], near = k.kind == Kind::f32 ? 1e-5 : 1e-2;
        if (!(std::fabs(got.at(i) - wanted) <= near * (1 + std::fabs(wanted)))) fail("a tape over lanes", level, got.at(i), wanted);
    }
    for (int64_t i = 0; i < 2 * k.heads * k.room; i++) {
        const int64_t row = i / k.room, slot = i % k.room;
        const double wanted = row >= k.heads && slot < slots ? recent[static_cast<size_t>((row - k.heads) * slots + slot)] : 0;
        if (!(std::fabs(all_recent[static_cast<size_t>(i)] - wanted) <= 1e-5)) fail("notes of a tape", level, 0, wanted);
        if (row >= 2 * k.lanes) continue;
        const bool second = row >= k.lanes && slot < slots;
        const size_t there = static_cast<size_t>((row - k.lanes) * slots + slot);
        if (!(std::fabs(all_mass[static_cast<size_t>(i)] - (second ? mass[there] : 0)) <= 1e-5))
            fail("notes of a tape", level, all_mass[static_cast<size_t>(i)], 0);
        if (all_used[static_cast<size_t>(i)] != (second ? used[there] : -1)) fail("notes of a tape", level, 0, 0);
    }
}

// Lanes that eviction left: other lengths, holes, each key turned by a number of its own, and what each slot was given.
void kept() {
    const int64_t dim = among({16, 64, 80, 128}), page = among({16, 64}), lanes = among({1, 2, 3}), g = among({1, 2, 5});
    const int64_t columns = among({1, 2, 5}), rows = among({1, 2, 5}), half = among({0, dim / 2, dim / 4}), steps = 9;
    const auto kind = static_cast<Kind>(source() % 3), code = static_cast<Kind>(3 + source() % 2);
    const int64_t groups = dim / among({8, 16, dim}), total = lanes * columns;
    Drawn written(kind, total + 1, dim, page, 1);
    const Drawn coded(code, total, dim, page, groups);
    std::vector<int64_t> table(static_cast<size_t>(total)), sealed, counts, at, positions, turns;
    for (auto& id : table) id = static_cast<int64_t>(source() % static_cast<unsigned>(total));
    for (int64_t lane = 0; lane < lanes; lane++) {
        counts.push_back(1 + static_cast<int64_t>(source() % static_cast<unsigned>(columns * page)));
        sealed.push_back(static_cast<int64_t>(source() % 2) * (counts.back() / page));
    }
    const int64_t slots = *std::max_element(counts.begin(), counts.end()), room = slots + 3, last = 3 * slots;
    for (int64_t i = 0; i < lanes * room; i++) positions.push_back(source() % 5 ? static_cast<int64_t>(source() % static_cast<unsigned>(last)) : -1);
    for (int64_t i = 0; i < lanes * slots; i++) turns.push_back(static_cast<int64_t>(source() % (2 * steps - 1)) - steps + 1);
    for (int64_t r = 0; r < rows; r++) at.push_back(last / 2 + r);
    std::vector<float> q(static_cast<size_t>(rows * g * lanes * dim)), cos(static_cast<size_t>(steps * half)), sin(cos), learned,
        weights;
    for (auto& x : q) x = static_cast<float>(uniform(-0.3, 0.3));
    for (size_t i = 0; i < cos.size(); i++) {
        const double angle = uniform(0, 6);
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
    }
    if (source() % 2)
        for (int64_t i = 0; i < g * lanes; i++) learned.push_back(static_cast<float>(uniform(-2, 2)));
    if (source() % 2)
        for (int64_t i = 0; i < lanes * room; i++) weights.push_back(static_cast<float>(1 + source() % 4));
    const int64_t window = among({0, slots / 2 + 1}), sinks = among({0, 4}), width = (slots + page - 1) / page * page;
    const float cap = static_cast<float>(among({0, 2}));
    std::vector<double> expected(q.size()), given(static_cast<size_t>(lanes * slots));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < g * lanes; h++) {
            const int64_t lane = h / g, head = (r * g * lanes + h) * dim;
            std::vector<double> shares(static_cast<size_t>(slots));
            double all = learned.empty() ? 0 : std::exp(static_cast<double>(learned[static_cast<size_t>(h)]));
            auto value = [&](int64_t s, int64_t d) {
                const int64_t n = s / page, id = table[static_cast<size_t>(lane * columns + n)];
                return n < sealed[static_cast<size_t>(lane)] ? coded.value(id, s % page, d) : written.value(id, s % page, d);
            };
            for (int64_t s = 0; s < counts[static_cast<size_t>(lane)]; s++) {
                const int64_t where = positions[static_cast<size_t>(lane * room + s)], row = at[static_cast<size_t>(r)];
                if (where < 0 || where > row || (window && where <= row - window && where >= sinks)) continue;
                const int64_t n = s / page, id = table[static_cast<size_t>(lane * columns + n)];
                auto key = [&](int64_t d) {
                    return n < sealed[static_cast<size_t>(lane)] ? coded.key(id, d, s % page) : written.key(id, d, s % page);
                };
                const int64_t by = turns[static_cast<size_t>(lane * slots + s)], line = std::abs(by) * half;
                double score = 0;
                for (int64_t d = 0; d < dim; d++) {
                    double x = key(d);
                    if (d < 2 * half) {
                        const double c = cos[static_cast<size_t>(line + d % half)],
                                     t = sin[static_cast<size_t>(line + d % half)] * (by < 0 ? -1 : 1);
                        x = d < half ? x * c - key(d + half) * t : x * c + key(d - half) * t;
                    }
                    score += q[static_cast<size_t>(head + d)] * x;
                }
                if (cap != 0) score = cap * std::tanh(score / cap);
                const double heavy = weights.empty() ? 1 : weights[static_cast<size_t>(lane * room + s)];
                all += shares[static_cast<size_t>(s)] = heavy * std::exp(score);
            }
            for (int64_t s = 0; s < counts[static_cast<size_t>(lane)]; s++) {
                const double share = shares[static_cast<size_t>(s)] / std::max(all, 1e-30);
                given[static_cast<size_t>(lane * slots + s)] += share;
                for (int64_t d = 0; share > 0 && d < dim; d++) expected[static_cast<size_t>(head + d)] += share * value(s, d);
            }
        }
    for (const Level* level : available()) {
        std::vector<float> out(q.size()), mass(given.size()), recent(static_cast<size_t>(lanes * g * slots)),
            scores(static_cast<size_t>(lanes * rows * g * width));
        std::vector<int64_t> used(given.size(), -1);
        attend(level, 3,
               {q.data(), at.data(), rows, g * lanes, lanes, dim, page, slots, columns, table.data(), sealed.data(),
                counts.data(), kind, written.keys.data(), written.values.data(),
                {code, 0, nullptr, coded.keys.data(), coded.values.data(), coded.key_min.data(), coded.key_step.data(),
                 coded.value_min.data(), coded.value_step.data(), groups, 0},
                positions.data(), weights.empty() ? nullptr : weights.data(), room, half, cos.data(), sin.data(), slots,
                turns.data(), window, sinks, cap, learned.empty() ? nullptr : learned.data(), out.data(), mass.data(),
                recent.data(), at[0], used.data(), 0.01f, scores.data()});
        for (size_t i = 0; i < out.size(); i++)
            if (!(std::fabs(out[i] - expected[i]) <= 1e-4 * (1 + std::fabs(expected[i]))))
                fail("what eviction left", level, out[i], expected[i]);
        for (size_t i = 0; i < given.size(); i++)
            if (!(std::fabs(mass[i] - given[i]) <= 1e-4)) fail("what slots were given", level, mass[i], given[i]);
        on_tape(level, {nullptr, at.data(), rows, g * lanes, lanes, dim, page, slots, columns, table.data(), sealed.data(),
                        counts.data(), kind, written.keys.data(), written.values.data(),
                        {code, 0, nullptr, coded.keys.data(), coded.values.data(), coded.key_min.data(),
                         coded.key_step.data(), coded.value_min.data(), coded.value_step.data(), groups, 0},
                        positions.data(), weights.empty() ? nullptr : weights.data(), room, half, cos.data(), sin.data(),
                        slots, turns.data(), window, sinks, cap, learned.empty() ? nullptr : learned.data(), nullptr,
                        nullptr, nullptr, at[0], nullptr, 0.01f, nullptr},
                written, total);
    }
}

// A tape against the same calls one by one, which are checked above: rows of a table, a norm, a layer, attention whose
// keys go to the last page of two sequences, and what little is done between these.
void tapes() {
    const int64_t dim = among({16, 64, 96}), page = among({16, 64}), lanes = among({1, 3}), heads = lanes * among({1, 2});
    const int64_t pages = among({1, 2, 9}), hidden = among({16, 33, 64}), table = 5, rows = among({2, 4});
    const int64_t each = rows / 2, last = among({each - 1, page - 1}), total = 2 * pages * lanes, layers = 2;
    const auto kind = static_cast<Kind>(source() % 3);
    const int64_t unit = kind == Kind::f32 ? 4 : 2, widths[3] = {heads * dim, lanes * dim, lanes * dim};
    const Numbers words(kind, table * hidden, true), weight(kind, hidden, true);
    std::vector<Numbers> matrices;
    for (int64_t width : widths) matrices.emplace_back(kind, width * hidden, true);
    std::vector<int64_t> ids(static_cast<size_t>(rows)), order(static_cast<size_t>(total)), targets, places;
    for (auto& id : ids) id = static_cast<int64_t>(source() % table);
    for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int64_t>(i);
    std::shuffle(order.begin(), order.end(), source);  // sequence by sequence, page by page, lane by lane
    for (int64_t layer = 0; layer < layers; layer++)
        for (int64_t g = 0; g < lanes; g++)
            for (int64_t t = 0; t < rows; t++)
                targets.push_back(order[static_cast<size_t>((t / each * pages + pages - 1) * lanes + g)]);
    for (int64_t t = 0; t < rows; t++) places.push_back(last - each + 1 + t % each);
    const int64_t half = among({0, dim / 2});
    std::vector<float> cos(static_cast<size_t>(rows * half), 0.8f), sin(cos.size(), 0.6f),
        far_cos(static_cast<size_t>(pages * half), 0.6f), far_sin(far_cos.size(), -0.8f);
    const Drawn drawn(kind, total, dim, page, 1);
    const int64_t base = -(pages - 1) * page, first = last - each + 1;
    auto segment = [&](const Drawn& all, int64_t sequence) {
        return Segment{kind,    pages,   order.data() + sequence * pages * lanes, all.keys.data(), all.values.data(), nullptr,
                       nullptr, nullptr, nullptr, 1, 0};
    };
    for (const Level* level : available()) {
        Linear layer(level, kind, kind, hidden, Act::none);
        for (int i = 0; i < 3; i++) layer.add({matrices[static_cast<size_t>(i)].held.data(), nullptr, widths[i]});
        const int64_t size = rows * heads * dim;
        Drawn mine = drawn, other = drawn;
        std::vector<float> results[2];
        bool finite = false;
        {
            Numbers x(kind, rows * hidden, false), y = x, out(kind, size, false), twice = out, scaled = out;
            Numbers q(kind, rows * widths[0], false), k(kind, rows * widths[1], false), v = k;
            std::vector<float> wide(static_cast<size_t>(size));
            Tape tape(level, kind);
            tape.rows(words.held.data(), hidden * unit, ids.data(), rows, x.held.data());
            tape.norm({kind, rows, hidden, x.held.data(), weight.held.data(), nullptr, nullptr, y.held.data(), 1e-5f,
                       false});
            tape.linear(&layer, rows, y.held.data(), {q.held.data(), k.held.data(), v.held.data()});
            tape.attend({1, rows, heads, dim, q.held.data(), k.held.data(), v.held.data(), widths[0], dim, widths[1], dim,
                         widths[2], dim, 0.3f, 0, nullptr, out.held.data()});
            tape.add(size, out.held.data(), out.held.data(), twice.held.data());
            tape.scale(size, twice.held.data(), 0.25f, scaled.held.data());
            tape.widen(size, scaled.held.data(), wide.data());
            tape.finite(size, scaled.held.data(), &finite);
            longspan::Pages held[2] = {longspan::Pages(layers), longspan::Pages(layers)};
            Held all{lanes, page, false, mine.keys.data(), mine.values.data(), {}, {}, std::vector<Held::Place>(layers)};
            all.readings.push_back({targets.data(), places.data(), {half, cos.data(), sin.data()},
                                    {half, cos.data(), sin.data()}, {}});
            for (int64_t i = 0; i < 2; i++) {
                held[i].layers[1].push_back(segment(mine, i));
                all.readings[0].sequences.push_back(
                    {each, first, base, base, 0, {half, far_cos.data(), far_sin.data()}, &held[i]});
            }
            all.layers[1] = {0, -1, 1};
            if (tape.run(0, 3, nullptr) != 3) fail("a tape without its pages", level, 0, 3);
            if (tape.run(0, 3, &all) != -1) fail("a tape", level, 0, -1);
            results[0] = wide;
        }
        {
            Numbers x(kind, rows * hidden, false), y = x;
            Numbers q(kind, rows * widths[0], false), k(kind, rows * widths[1], false), v = k;
            std::vector<float> queries(static_cast<size_t>(size)), sums(queries);
            for (int64_t t = 0; t < rows; t++)
                std::memcpy(x.held.data() + t * hidden * unit, words.held.data() + ids[static_cast<size_t>(t)] * hidden * unit,
                            static_cast<size_t>(hidden * unit));
            rms_norm(level, 2, {kind, rows, hidden, x.held.data(), weight.held.data(), nullptr, nullptr, y.held.data(),
                                 1e-5f, false});
            char* to[3] = {q.held.data(), k.held.data(), v.held.data()};
            layer.run(1, rows, y.held.data(), to);
            place(1, {static_cast<int>(kind), rows, heads, lanes, dim, page, half, half, to[0], to[1], to[2], widths[0], dim,
                      widths[1], dim, widths[2], dim, cos.data(), sin.data(), cos.data(), sin.data(), 0.3f,
                      targets.data() + lanes * rows, places.data(), 0, other.keys.data(), other.values.data(),
                      queries.data()});
            Decode decode(level, 1);
            for (int64_t i = 0; i < 2; i++) {
                const int64_t at = i * each * heads * dim;
                decode.work({queries.data() + at, each, heads, lanes, dim, page, half, first, base, base, 0, far_cos.data(),
                             far_sin.data(), 0, false}, nullptr, sums.data() + at);
                decode.add(segment(other, i));
            }
            decode.finish();
            results[1] = sums;
        }
        for (const float odd : {NAN, INFINITY}) {  // at the end, where vectors may not reach
            Numbers some(kind, size, false);
            some.put(size - 1, odd);
            Tape tape(level, kind);
            tape.finite(size, some.held.data(), &finite);
            if (tape.run(0, 1, nullptr) != -1 || finite) fail("a number that is none", level, 0, odd);
            finite = true;
        }
        if (mine.keys != other.keys || mine.values != other.values) fail("pages written by a tape", level, 0, 0);
        for (size_t i = 0; i < results[0].size(); i++) {
            const double wanted = 0.5 * static_cast<double>(results[1][i]), near = kind == Kind::f32 ? 0 : 2e-2;
            if (!(std::fabs(results[0][i] - wanted) <= near * (1e-3 + std::fabs(wanted))) || !finite)
                fail("a tape", level, results[0][i], wanted);
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    int rounds = count > 1 ? std::atoi(arguments[1]) : 300;
    for (int i = 0; i < rounds; i++) {
        attention(true);
        attention(false);
        scores();
        products();
        seals();
        slots();
        tapes();
        kept();
    }
    std::printf("%d rounds on", rounds);
    for (const Level* level : available()) std::printf(" %s", level->name);
    std::printf(": no difference\n");
}
