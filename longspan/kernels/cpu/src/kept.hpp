// Attention over what eviction left, and what each slot was given. Slots are in the order of the text, so those of a page
// that turn alike lie side by side: queries are turned for each such run, and dense pages read as they are. Pages of codes,
// and those of many runs, are opened in float32 and their keys turned one by one.
#pragma once

namespace {

struct KeptRoom {
    static constexpr int64_t RUNS = 12;  // above, turning keys takes less time than turning queries
    float *opened, *low, *step, *cos, *sin, *turned, *scores, *ones;
    int64_t size;

    KeptRoom(const Kept& k, float* memory) {
        int64_t used = 0;
        auto take = [&](int64_t n) {
            float* p = memory ? memory + used : nullptr;
            used += padded(n + PAD);
            return p;
        };
        opened = take(k.dim * k.page);
        const int64_t scales = k.dim > k.page * k.coded.groups ? k.dim : k.page * k.coded.groups;
        low = take(scales);
        step = take(scales);
        cos = take(k.half * k.page);
        sin = take(k.half * k.page);
        turned = take(k.many() * k.dim);
        scores = take(k.many() * k.page);
        ones = take(k.many());
        size = used;
    }
};

size_t kept_scratch(const Kept& k) { return static_cast<size_t>(KeptRoom(k, nullptr).size); }

// A page's keys [D, P] or values [P, D] in float32.
inline void open_kept(const Kept& k, int64_t lane, int64_t n, bool keys, const KeptRoom& r) {
    const int64_t id = k.table[lane * k.columns + n];
    const bool coded = n < k.sealed[lane];
    const Kind kind = coded ? k.coded.kind : k.kind;
    const char* from = (coded ? (keys ? k.coded.keys : k.coded.values) : (keys ? k.keys : k.values)) +
                       id * page_bytes(kind, k.dim * k.page);
    auto at = [&](const uint16_t* scales, int64_t each) { return coded && scales ? scales + id * each : nullptr; };
    if (keys)
        open(kind, from, k.dim, k.page, at(k.coded.key_min, k.dim), at(k.coded.key_step, k.dim), 1, r);
    else
        open(kind, from, k.page, k.dim, at(k.coded.value_min, k.page * k.coded.groups),
             at(k.coded.value_step, k.page * k.coded.groups), k.coded.groups, r);
}

// Keys [D, P], each turned by a row of the table.
inline void turn_kept(const Kept& k, const int64_t* turns, int64_t many, const KeptRoom& r) {
    bool alike = true;
    for (int64_t p = 1; p < many; p++) alike &= turns[p] == turns[0];
    for (int64_t p = 0; !alike && p < k.page; p++) {
        const int64_t by = p < many ? turns[p] : 0, row = by < 0 ? -by : by;
        const float sign = by < 0 ? -1.0f : 1.0f;
        for (int64_t i = 0; i < k.half; i++) {
            r.cos[i * k.page + p] = k.cos[row * k.half + i];
            r.sin[i * k.page + p] = k.sin[row * k.half + i] * sign;
        }
    }
    const int64_t all = many ? turns[0] : 0, row = all < 0 ? -all : all;
    for (int64_t i = 0; i < k.half; i++) {
        float *a = r.opened + i * k.page, *b = a + k.half * k.page;
        const V::F c = V::set(k.cos[row * k.half + i]), s = V::set(k.sin[row * k.half + i] * (all < 0 ? -1.0f : 1.0f));
        for (int64_t p = 0; p < k.page; p += V::W) {
            const V::F x = V::load(a + p), y = V::load(b + p), cos = alike ? c : V::load(r.cos + i * k.page + p),
                       sin = alike ? s : V::load(r.sin + i * k.page + p);
            V::store(a + p, V::sub(V::mul(x, cos), V::mul(y, sin)));
            V::store(b + p, V::fma(y, cos, V::mul(x, sin)));
        }
    }
}

template <int N>
struct Count {
    static constexpr int value = N;
};

// out [m, N·W] from column `at` of rows [n, width]: coefficients a [m, n], of which row j begins at row_of(j).
template <int M, int N, class Row>
void kept_block(const Row& row_of, int64_t n, const float* matrix, int64_t width, int64_t at, V::F out[M][N]) {
    for (int j = 0; j < M; j++)
        for (int i = 0; i < N; i++) out[j][i] = V::set(0.0f);
    const float* row[M];
    for (int j = 0; j < M; j++) row[j] = row_of(j);
    for (int64_t l = 0; l < n; l++) {
        V::F x[N];
        for (int i = 0; i < N; i++) x[i] = V::load(matrix + l * width + at + i * V::W);
        for (int j = 0; j < M; j++) {
            const V::F a = V::set(row[j][l]);
            for (int i = 0; i < N; i++) out[j][i] = V::fma(a, x[i], out[j][i]);
        }
    }
}

// put(j, column, vector) for all rows j < m and columns of the product of rows and matrix [n, width].
template <class Row, class Put>
void kept_product(int64_t m, const Row& row_of, int64_t n, const float* matrix, int64_t width, const Put& put) {
    auto columns = [&](auto count, int64_t first) {
        constexpr int M = decltype(count)::value;
        auto row = [&](int64_t j) { return row_of(first + j); };
        int64_t at = 0;
        for (; at + V::BLOCK * V::W <= width; at += V::BLOCK * V::W) {
            V::F sums[M][V::BLOCK];
            kept_block<M, V::BLOCK>(row, n, matrix, width, at, sums);
            for (int j = 0; j < M; j++)
                for (int i = 0; i < V::BLOCK; i++) put(first + j, at + i * V::W, sums[j][i]);
        }
        for (; at < width; at += V::W) {
            V::F sums[M][1];
            kept_block<M, 1>(row, n, matrix, width, at, sums);
            for (int j = 0; j < M; j++) put(first + j, at, sums[j][0]);
        }
    };
    int64_t j = 0;
    for (; j + 3 <= m; j += 3) columns(Count<3>{}, j);
    if (m - j == 2) columns(Count<2>{}, j);
    if (m - j == 1) columns(Count<1>{}, j);
}

// A dense page of a lane, where it is one.
struct Dense {
    const char *keys = nullptr, *values = nullptr;

    Dense(const Kept& k, int64_t lane, int64_t n) {
        const bool coded = n < k.sealed[lane];
        if (n >= k.pages(lane) || (coded && k.coded.kind != k.kind)) return;
        const int64_t at = k.table[lane * k.columns + n] * page_bytes(k.kind, k.dim * k.page);
        keys = (coded ? k.coded.keys : k.keys) + at;
        values = (coded ? k.coded.values : k.values) + at;
    }
};

template <class F>
void with_dense(Kind kind, const F& call) {
    switch (kind) {
        case Kind::f32: return call(Float{});
        case Kind::bf16: return call(Half<true>{});
        default: return call(Half<false>{});
    }
}

// Of the first `many` slots, how many runs turn alike.
inline int64_t runs_of(const Kept& k, const int64_t* turns, int64_t many) {
    int64_t found = 1;
    for (int64_t p = 1; k.half && p < many; p++) found += turns[p] != turns[p - 1];
    return found;
}

// Scores [M, P] of a dense page's first `many` slots, run by run: what comes after them may be anything.
inline void score_runs(const Kept& k, const KeptRoom& r, int64_t lane, const char* keys, const char* next,
                       const int64_t* turns, int64_t many, float* scores, int64_t width) {
    const int64_t g = k.group();
    for (int64_t begin = 0, end = 0; begin < many; begin = end) {
        for (end = begin + 1; end < many && (!k.half || turns[end] == turns[begin]); end++) {}
        for (int64_t m = 0; m < k.many(); m++) {
            const float* q = k.queries + ((m / g) * k.heads + lane * g + m % g) * k.dim;
            // a key that turns one way is a query that turns the other
            const int64_t by = k.half ? turns[begin] : 0, at = (by < 0 ? -by : by) * k.half;
            const auto way = by < 0 ? turn<false> : turn<true>;
            way(q, k.dim, k.half, k.cos + at, k.sin + at, r.turned + m * k.dim);
        }
        const int64_t from = begin / V::W * V::W, to = (end + V::W - 1) / V::W * V::W;
        with_dense(k.kind, [&](auto rows) {
            multiply<decltype(rows), 0>({keys, 0, k.dim, k.page, r.turned, k.dim, nullptr, nullptr, r.scores, k.page, 1,
                                         begin ? nullptr : next}, k.many(), from, to);
        });
        for (int64_t m = 0; m < k.many(); m++)
            for (int64_t p = begin; p < end; p++) scores[m * width + p] = r.scores[m * k.page + p];
    }
}

// Scores of pages from…to of a lane; −inf where a row sees nothing.
void kept_score(const Kept& k, int64_t lane, int64_t from, int64_t to, float* scratch) {
    const KeptRoom r(k, scratch);
    const int64_t g = k.group(), width = k.width();
    for (int64_t n = from; n < to; n++) {
        const int64_t first = n * k.page, left = k.counts[lane] - first, many = left < k.page ? left : k.page;
        const int64_t* turns = k.half ? k.turns + lane * k.span + first : nullptr;
        float* scores = k.scores + lane * k.many() * width + first;
        const Dense dense(k, lane, n);
        if (dense.keys && runs_of(k, turns, many) <= KeptRoom::RUNS) {
            score_runs(k, r, lane, dense.keys, Dense(k, lane, n + 1).keys, turns, many, scores, width);
        } else {
            open_kept(k, lane, n, true, r);
            if (k.half) turn_kept(k, turns, many, r);
            auto query = [&](int64_t m) { return k.queries + ((m / g) * k.heads + lane * g + m % g) * k.dim; };
            kept_product(k.many(), query, k.dim, r.opened, k.page,
                         [&](int64_t m, int64_t p, V::F x) { V::store(scores + m * width + p, x); });
        }
        for (int64_t m = 0; k.softcap != 0 && m < k.many(); m++)
            for (int64_t p = 0; p < k.page; p += V::W) {
                const V::F x = V::load(scores + m * width + p);
                V::store(scores + m * width + p, V::mul(V::set(k.softcap), tanhf(V::div(x, V::set(k.softcap)))));
            }
        const int64_t* positions = k.positions + lane * k.room + first;
        const float* weights = k.weights ? k.weights + lane * k.room + first : nullptr;
        const int64_t oldest = k.at[0], newest = k.at[k.rows - 1];
        bool plain = many == k.page;  // all rows see all of it, and all slots stand for one token
        for (int64_t p = 0; plain && p < many; p++)
            plain = positions[p] >= 0 && positions[p] <= oldest && (!weights || weights[p] == 1.0f) &&
                    (!k.window || positions[p] > newest - k.window || positions[p] < k.sinks);
        for (int64_t p = 0; !plain && p < k.page; p++) {
            const int64_t at = p < many ? positions[p] : -1;
            const float bias = weights && at >= 0 && weights[p] != 1.0f ? __builtin_logf(weights[p]) : 0.0f;
            for (int64_t m = 0; m < k.many(); m++) {
                const int64_t row = k.at[m / g];
                const bool seen = at >= 0 && at <= row && (!k.window || at > row - k.window || at < k.sinks);
                float& score = scores[m * width + p];
                score = seen ? score + bias : -__builtin_inff();
            }
        }
    }
}

// Scores of a lane become probabilities, of which notes are taken.
void kept_weigh(const Kept& k, int64_t lane) {
    const int64_t g = k.group(), width = k.width(), slots = k.pages(lane) * k.page;
    for (int64_t m = 0; m < k.many(); m++) {
        float* row = k.scores + (lane * k.many() + m) * width;
        V::F most = V::set(-1e30f), sum = V::set(0.0f);
        for (int64_t s = 0; s < slots; s += V::W) most = V::max(V::load(row + s), most);
        float top = V::most(most);
        const float* learned = k.learned ? k.learned + lane * g + m % g : nullptr;
        if (learned && *learned > top) top = *learned;
        for (int64_t s = 0; s < slots; s += V::W) {
            const V::F x = expf(V::sub(V::load(row + s), V::set(top)));
            V::store(row + s, x);
            sum = V::add(sum, x);
        }
        float total = V::sum(sum);
        if (learned) {
            float one[V::W];
            V::store(one, expf(V::set(*learned - top)));
            total += one[0];
        }
        const V::F scale = V::set(1.0f / (total > 1e-30f ? total : 1e-30f));
        for (int64_t s = 0; s < slots; s += V::W) V::store(row + s, V::mul(V::load(row + s), scale));
    }
    const int64_t held = k.counts[lane];
    const float* rows = k.scores + lane * k.many() * width;
    for (int64_t m = 0; m < k.many(); m++) {
        const float* row = rows + m * width;
        if (k.mass)
            for (int64_t s = 0; s < held; s++) k.mass[lane * k.span + s] += row[s];
        if (k.recent && k.at[m / g] >= k.since)
            for (int64_t s = 0; s < held; s++) k.recent[(lane * g + m % g) * k.span + s] += row[s];
    }
    for (int64_t r = 0; k.used && r < k.rows; r++)
        for (int64_t n = 0; n < k.pages(lane); n++) {
            float given = 0;
            for (int64_t m = r * g; m < (r + 1) * g; m++)
                for (int64_t s = n * k.page; s < (n + 1) * k.page; s++) given += rows[m * width + s];
            const int64_t end = (n + 1) * k.page < k.slots ? (n + 1) * k.page : k.slots;
            int64_t* used = k.used + lane * k.span;
            if (given > k.share * static_cast<float>(g))
                for (int64_t s = n * k.page; s < end; s++) used[s] = used[s] > k.at[r] ? used[s] : k.at[r];
        }
}

// What pages from…to of a lane add to its rows.
void kept_sum(const Kept& k, int64_t lane, int64_t from, int64_t to, float* scratch, float* part) {
    const KeptRoom r(k, scratch);
    const int64_t width = k.width();
    for (int64_t i = 0; i < k.many() * k.dim; i++) part[i] = 0;
    for (int64_t m = 0; m < k.many(); m++) r.ones[m] = 1.0f;
    for (int64_t n = from; n < to; n++) {
        const int64_t first = n * k.page, left = k.counts[lane] - first, many = left < k.page ? left : k.page;
        const int64_t* positions = k.positions + lane * k.room + first;
        const Dense dense(k, lane, n);
        bool full = dense.values != nullptr;
        for (int64_t p = 0; full && p < many; p++) full = positions[p] >= 0;
        if (full) {
            with_dense(k.kind, [&](auto rows) {
                multiply<decltype(rows), 0>({dense.values, 0, many, k.dim, k.scores + lane * k.many() * width + first,
                                             width, nullptr, r.ones, part, k.dim, 1, Dense(k, lane, n + 1).values},
                                            k.many());
            });
            continue;
        }
        open_kept(k, lane, n, false, r);
        for (int64_t p = 0; p < k.page; p++)  // what holds nothing may hold NaN
            if (p >= many || positions[p] < 0)
                for (int64_t d = 0; d < k.dim; d++) r.opened[p * k.dim + d] = 0;
        auto row = [&](int64_t m) { return k.scores + (lane * k.many() + m) * width + first; };
        kept_product(k.many(), row, k.page, r.opened, k.dim, [&](int64_t m, int64_t d, V::F x) {
            float* to = part + m * k.dim + d;
            V::store(to, V::add(V::load(to), x));
        });
    }
}

}  // namespace
