// Attention of many rows over gathered slots, each with a position of its own. All scores of some query rows are held at
// a time, as their number is bounded, so that what each slot was given can be told.
#pragma once

namespace {
namespace slotted {

constexpr int64_t CHUNK = V::BLOCK * V::W;  // slots whose scores are in registers at a time
constexpr int64_t TALL = 2 * 64;            // slots whose values stay in the nearest cache

// Keys [D, S] and values [S, D] of slots from…to of a lane in float32, zeros where nothing is held.
void lay(const Slotted& s, int64_t lane, int64_t from, int64_t to) {
    const int64_t width = s.width(), unit = s.kind == Kind::f32 ? 4 : 2;
    float *keys = s.laid_keys + lane * s.dim * width, *values = s.laid_values + lane * s.dim * width;
    const float* late = s.late + lane * width;
    const V::F zero = V::set(0.0f);
    for (int64_t at = from; at < to; at += V::W)
        for (int64_t d = 0; d < s.dim; d += V::W) {
            V::F x[V::W];
            for (int64_t j = 0; j < V::W; j++) {
                const int64_t slot = at + j;
                const bool held = slot < s.slots && late[slot] < Slotted::NOTHING;
                x[j] = held ? V::load(s.keys + lane * s.key_lane + slot * s.key_slot + d) : zero;
                const char* value = s.values + (lane * s.value_lane + slot * s.value_slot + d) * unit;
                V::store(values + slot * s.dim + d, held ? many_rows::vector(s.kind, value) : zero);
            }
            many_rows::transpose(x);
            for (int64_t j = 0; j < V::W; j++) V::store(keys + (d + j) * width + at, x[j]);
        }
}

struct Block {
    float *queries, *scores, *sums, *pages;
    int64_t size;

    Block(const Slotted& s, float* memory) {
        Shelf shelf(memory);
        const int64_t many = (s.block * s.group() + V::ROWS - 1) / V::ROWS * V::ROWS;
        queries = shelf.take(many * s.dim);
        scores = shelf.take(many * s.width());
        sums = shelf.take(many * s.dim);
        pages = shelf.take(s.used ? s.width() / s.page + 1 : 0);
        size = shelf.used + 16;
    }
};

size_t scratch(const Slotted& s) { return static_cast<size_t>(Block(s, nullptr).size); }

// Rows from…to of a lane. What they gave goes to `mass`, `recent` and `used` of this task.
struct Rows {
    const Slotted& s;
    const Block b;
    const int64_t lane, from, to, width, g, count, many;
    const float *late, *early, *bias;

    Rows(const Slotted& work, int64_t of, int64_t first, int64_t last, float* memory)
        : s(work),
          b(work, memory),
          lane(of),
          from(first),
          to(last),
          width(work.width()),
          g(work.group()),
          count((last - first) * g),
          many((count + V::ROWS - 1) / V::ROWS * V::ROWS),
          late(work.late + of * width),
          early(work.early ? work.early + of * width : nullptr),
          bias(work.bias ? work.bias + of * width : nullptr) {}

    float at(int64_t m) const { return s.at[from + (m < count ? m : count - 1) / g]; }

    // whether one of the rows m… sees one of the slots c…
    bool sees(int64_t m, int64_t c) const {
        const int64_t chunk = lane * (width / CHUNK) + c / CHUNK;
        if (s.first[chunk] > at(m + V::ROWS - 1)) return false;
        return !early || s.newest[chunk] > at(m) - s.window;
    }

    void run(float* mass, float* recent, int64_t* used) {
        load();
        const float* keys = s.laid_keys + lane * s.dim * width;
        for (int64_t c = 0; c < width; c += CHUNK)
            for (int64_t m = 0; m < count; m += V::ROWS) {
                float* out = b.scores + m * width + c;
                if (sees(m, c))
                    product<Exact, V::BLOCK, false>(b.queries + m * s.dim, s.dim, keys + c, width, s.dim, out, width);
                else
                    for (int64_t j = 0; j < V::ROWS; j++)
                        for (int64_t i = 0; i < CHUNK; i += V::W)
                            V::store(out + j * width + i, V::set(-__builtin_inff()));
            }
        for (int64_t m = 0; m < count; m++) weigh(m);
        for (int64_t m = count; m < many; m++)
            for (int64_t i = 0; i < width; i += V::W) V::store(b.scores + m * width + i, V::set(0.0f));
        if (mass || recent || used) tell(mass, recent, used);
        sum();
    }

    void load() {
        for (int64_t m = 0; m < many; m++) {
            const float* q = s.queries + ((from + m / g) * s.heads + lane * g + m % g) * s.dim;
            for (int64_t d = 0; d < s.dim; d += V::W)
                V::store(b.queries + m * s.dim + d, m < count ? V::load(q + d) : V::set(0.0f));
        }
    }

    // scores become probabilities
    void weigh(int64_t m) {
        float* row = b.scores + m * width;
        const V::F none = V::set(-__builtin_inff());
        const V::F after = V::set(at(m) + 0.5f), until = V::set(at(m) - s.window + 0.5f);
        V::F most = none;
        for (int64_t i = 0; i < width; i += V::W) {
            V::F x = V::load(row + i);
            if (s.softcap != 0) {
                const V::F cap = V::set(s.softcap);
                x = V::mul(cap, tanhf(V::div(x, cap)));
            }
            if (bias) x = V::add(x, V::load(bias + i));
            x = V::less(V::load(late + i), after, x, none);
            if (early) x = V::less(V::load(early + i), until, none, x);
            most = V::max(x, most);
            V::store(row + i, x);
        }
        const float *learned = s.learned ? s.learned + lane * g + m % g : nullptr;
        float top = V::most(most);
        if (learned && *learned > top) top = *learned;
        if (!(top > -1e30f)) top = -1e30f;
        V::F total = V::set(0.0f);
        const V::F less = V::set(top);
        for (int64_t i = 0; i < width; i += V::W) {
            const V::F x = expf(V::sub(V::load(row + i), less));
            total = V::add(total, x);
            V::store(row + i, x);
        }
        float all = V::sum(total);
        if (learned) {
            float one[V::W];
            V::store(one, expf(V::set(*learned - top)));
            all += one[0];
        }
        const V::F factor = V::set(all > 1e-30f ? 1.0f / all : 0.0f);
        for (int64_t i = 0; i < width; i += V::W) V::store(row + i, V::mul(V::load(row + i), factor));
    }

    void tell(float* mass, float* recent, int64_t* used) {
        for (int64_t m = 0; m < count; m++) {
            const float* row = b.scores + m * width;
            const int64_t number = from + m / g;
            if (mass)
                for (int64_t i = 0; i < width; i += V::W) V::store(mass + i, V::add(V::load(mass + i), V::load(row + i)));
            if (recent && number >= s.since) {
                float* to_head = recent + m % g * width;
                for (int64_t i = 0; i < width; i += V::W)
                    V::store(to_head + i, V::add(V::load(to_head + i), V::load(row + i)));
            }
            if (!used) continue;
            const int64_t pages = (s.slots + s.page - 1) / s.page;
            for (int64_t n = 0; n < pages; n++) {
                const int64_t end = (n + 1) * s.page < s.slots ? (n + 1) * s.page : s.slots;
                float all = m % g ? b.pages[n] : 0.0f;
                for (int64_t i = n * s.page; i < end; i++) all += row[i];
                b.pages[n] = all;
                if (m % g == g - 1 && all > s.share * static_cast<float>(g)) used[n] = number;
            }
        }
    }

    void sum() {
        const float* values = s.laid_values + lane * s.dim * width;
        for (int64_t d = 0; d < s.dim; d += CHUNK) {
            const int64_t left = s.dim - d;
            for (int64_t k = 0; k < width; k += TALL) {
                const int64_t steps = width - k < TALL ? width - k : TALL;
                for (int64_t m = 0; m < count; m += V::ROWS) {
                    const float *w = b.scores + m * width + k, *v = values + k * s.dim + d;
                    float* out = b.sums + m * s.dim + d;
                    if (left >= CHUNK)
                        part<V::BLOCK>(k, w, v, steps, out);
                    else
                        for (int64_t i = 0; i < left; i += V::W) part<1>(k, w, v + i, steps, out + i);
                }
            }
        }
        for (int64_t m = 0; m < count; m++) {
            float* out = s.out + ((from + m / g) * s.heads + lane * g + m % g) * s.dim;
            for (int64_t d = 0; d < s.dim; d += V::W) V::store(out + d, V::load(b.sums + m * s.dim + d));
        }
    }

    template <int N>
    void part(int64_t k, const float* w, const float* v, int64_t steps, float* out) {
        if (k == 0)
            product<Exact, N, false>(w, width, v, s.dim, steps, out, s.dim);
        else
            product<Exact, N, true>(w, width, v, s.dim, steps, out, s.dim);
    }
};

void attend(const Slotted& s, int64_t lane, int64_t from, int64_t to, float* memory, float* mass, float* recent,
            int64_t* used) {
    Rows(s, lane, from, to, memory).run(mass, recent, used);
}

}  // namespace slotted
}  // namespace
