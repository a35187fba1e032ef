// What some rows of a prompt give to each page, by exact scores: a page is opened and turned once for all of them.
#pragma once

namespace {

inline size_t estimate_scratch(const Probe& e) {
    return static_cast<size_t>(TileRoom(e.prompt, e.count(), nullptr).size);
}

template <class A>
struct Probing {
    static constexpr int N = V::BLOCK;
    static constexpr int64_t CHUNK = TileRoom::CHUNK;

    const Probe& e;
    const Prompt& p;
    const TileRoom r;
    const int64_t units, many;

    Probing(const Probe& probe, float* scratch)
        : e(probe),
          p(probe.prompt),
          r(p, probe.count(), scratch),
          units(p.dim / A::UNIT),
          many(probe.count() * p.group()) {}

    // of the m-th query
    int64_t row(int64_t m) const { return m / p.group() * e.stride + e.stride - 1; }

    void run(const Segment& s, int64_t lane, int64_t from, int64_t to) {
        for (int64_t m = 0; m < r.many; m++) {
            float* query = r.queries + m * units;
            for (int64_t i = 0; i < units; i++) query[i] = 0.0f;
            const int64_t h = row(m) * p.heads + lane * p.group() + m % p.group();
            if (m < many) A::narrow(p.queries + h * p.dim, p.dim, A::FOLD, query);
        }
        for (int64_t n = from; n < to; n++) page(s, lane, n);
    }

    void page(const Segment& s, int64_t lane, int64_t n) {
        const int64_t here = s.ids ? s.ids[n * p.lanes + lane] : n * p.lanes + lane, channel = here * p.dim;
        const int64_t slot = p.base + (s.start + n) * p.page;
        auto at = [&](const uint16_t* scales) { return scales ? scales + channel : nullptr; };
        open(s.kind, s.keys + here * page_bytes(s.kind, p.dim * p.page), p.dim, p.page, at(s.key_min), at(s.key_step),
             1, r);
        if (p.half) turn_back(p, s.start + n, r.opened);
        for (int64_t d = 0; d < p.dim; d += A::UNIT)
            A::units(r.opened + d * p.page, p.page, r.keys + d / A::UNIT * r.width);
        for (int64_t m = 0; m < many; m += V::ROWS) {
            const int64_t end = m + V::ROWS < many ? m + V::ROWS : many;
            if (slot <= p.first + row(end - 1))
                for (int64_t c = 0; c < p.page; c += CHUNK)
                    product<A, N, false>(r.queries + m * units, units, r.keys + c, r.width, units, r.weights + c,
                                         r.width);
            for (int64_t j = m; j < end; j++) sum(r.weights + (j - m) * r.width, j, lane, s.start + n, slot);
        }
    }

    // The greatest of a query's scores on a page, and the sum of the weights below it.
    void sum(const float* scores, int64_t m, int64_t lane, int64_t n, int64_t slot) {
        const int64_t to = p.first + row(m) + 1 - slot, from = p.begin - slot, vectors = p.page / V::W;
        const int64_t at = ((m / p.group()) * p.heads + lane * p.group() + m % p.group()) * p.pages + n;
        e.tops[at] = -1e30f;
        e.sums[at] = 0.0f;
        if (to <= 0) return;
        V::F x[BLOCK / V::W], most = V::set(-1e30f), all = V::set(0.0f);
        for (int64_t i = 0; i < vectors; i++) {
            x[i] = V::load(scores + i * V::W);
            if (p.softcap != 0) {
                V::F cap = V::set(p.softcap * A::FOLD);
                x[i] = V::mul(cap, tanhf(V::div(x[i], cap)));
            }
            if (to < p.page || from > 0) x[i] = V::only(x[i], from - i * V::W, to - i * V::W);
            most = V::max(most, x[i]);
        }
        const float top = V::most(most);
        for (int64_t i = 0; i < vectors; i++) all = V::add(all, A::exp(V::sub(x[i], V::set(top))));
        e.tops[at] = top / A::FOLD;
        e.sums[at] = V::sum(all);
    }
};

// Pages from…to of a segment, for one lane.
inline void estimate(const Probe& e, const Segment& s, int64_t lane, int64_t from, int64_t to, float* scratch) {
#if defined(__AVX512BF16__)
    if (e.prompt.narrow && e.prompt.pairs) return Probing<Brain>(e, scratch).run(s, lane, from, to);
#endif
    Probing<Exact>(e, scratch).run(s, lane, from, to);
}

// out [N]: the share of each page in the softmax of the rows of a block, the mean over these and a lane's heads.
inline void shares(const Probe& e, int64_t lane, int64_t block, float* out) {
    const Prompt& p = e.prompt;
    const int64_t many = e.rows() * p.group(), first = block * e.rows() * p.heads + lane * p.group();
    for (int64_t n = 0; n < p.pages; n++) out[n] = 0.0f;
    for (int64_t m = 0; m < many; m++) {
        const int64_t at = (first + m / p.group() * p.heads + m % p.group()) * p.pages;
        float *tops = e.tops + at, *sums = e.sums + at, top = -1e30f, total = 0.0f;
        for (int64_t n = 0; n < p.pages; n++) top = tops[n] > top ? tops[n] : top;
        // weights take the place of the sums; the last pages, fewer than a vector, are worked on aside
        for (int64_t n = 0; n < p.pages; n += V::W) {
            const int64_t here = p.pages - n < V::W ? p.pages - n : V::W;
            float x[V::W], y[V::W];
            for (int64_t i = 0; i < V::W; i++) {
                x[i] = i < here ? tops[n + i] - top : 0.0f;
                y[i] = i < here ? sums[n + i] : 0.0f;
            }
            V::F weight = V::mul(expf(V::load(x)), V::load(y));
            total += V::sum(weight);
            V::store(x, weight);
            for (int64_t i = 0; i < here; i++) sums[n + i] = x[i];
        }
        const float scale = 1.0f / (total * static_cast<float>(many));
        for (int64_t n = 0; n < p.pages; n++) out[n] += scale * sums[n];
    }
}

}  // namespace
