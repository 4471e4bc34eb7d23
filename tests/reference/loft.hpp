// LoFT on one process in plain double arrays, from arXiv 2505.21289 (its six parts: turns, scaled gradients,
// first and second moments in the coordinates of the moved partner, reconstruction, clipping by the
// reconstructed gradient): W_eff = W + B A. The gradients of the effective weights are arguments. The two
// defects of the released code can be asked for.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "reference/switchlora.hpp"

namespace switchyard::reference {

/// A matrix in rows.
struct Table {
    int rows = 0, cols = 0;
    Array x;

    Table() = default;
    Table(int rows, int cols) : rows(rows), cols(cols), x(rows * cols) {}
    double& operator()(int i, int j) { return x[i * cols + j]; }
    double operator()(int i, int j) const { return x[i * cols + j]; }

    Table turned() const {
        Table t(cols, rows);
        for (int i = 0; i < rows; ++i)
            for (int j = 0; j < cols; ++j) t(j, i) = (*this)(i, j);
        return t;
    }
    friend Table operator*(const Table& a, const Table& b) {
        Table c(a.rows, b.cols);
        for (int i = 0; i < a.rows; ++i)
            for (int k = 0; k < a.cols; ++k)
                for (int j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
        return c;
    }
    friend Table operator*(double s, Table a) {
        for (double& value : a.x) value *= s;
        return a;
    }
    friend Table operator+(Table a, const Table& b) {
        for (std::size_t i = 0; i < a.x.size(); ++i) a.x[i] += b.x[i];
        return a;
    }
};

/// (x + damping I)^-1 by elimination with pivots.
inline Table inverse(Table x, double damping) {
    const int r = x.rows;
    Table y(r, r);
    for (int i = 0; i < r; ++i) x(i, i) += damping, y(i, i) = 1;
    for (int k = 0; k < r; ++k) {
        int pivot = k;
        for (int i = k; i < r; ++i)
            if (std::fabs(x(i, k)) > std::fabs(x(pivot, k))) pivot = i;
        const double divisor = x(pivot, k);
        for (int j = 0; j < r; ++j) {
            std::swap(x(k, j), x(pivot, j));
            std::swap(y(k, j), y(pivot, j));
            x(k, j) /= divisor;
            y(k, j) /= divisor;
        }
        for (int i = 0; i < r; ++i) {
            if (i == k) continue;
            const double factor = x(i, k);
            for (int j = 0; j < r; ++j) {
                x(i, j) -= factor * x(k, j);
                y(i, j) -= factor * y(k, j);
            }
        }
    }
    return y;
}

struct LoftMatrix {
    int m, n, r;
    double damping_a = 1e-6, damping_b = 1e-8, eps = 1e-4, beta1 = 0.9, beta2 = 0.999;
    bool subtracts = false;  // B A of the start from W, so that the map stays what W was
    bool second_moment_turned =
        false;                     // first defect: R' P R where the first moment has R m, and R P R' for B
    bool updated_partner = false;  // second defect: B's coordinates are those of the A that was just updated
    Array w;                       // (m, n)
    Table a, b, a_old, b_old;      // (r, n), (m, r); old: before the last step
    Table m_a, m_b, overlap;
    std::vector<Table> p_a, p_b;  // (r, r) for each column of W, each row of W
    Table d_w;
    Array gradient;  // reconstructed, of the factor whose turn it is
    int step = 0;    // steps done

    LoftMatrix(int m, int n, int r)
        : m(m),
          n(n),
          r(r),
          w(m * n),
          a(r, n),
          b(m, r),
          m_a(r, n),
          m_b(m, r),
          overlap(r, r),
          p_a(n, Table(r, r)),
          p_b(m, Table(r, r)),
          d_w(m, n) {}
    void start() {
        const Table product = b * a;
        for (std::size_t i = 0; i < w.size() && subtracts; ++i) w[i] -= product.x[i];
        a_old = a, b_old = b;
    }
    bool turn_of_b() const { return step % 2 == 0; }
    Array effective() const {
        Array sum = w;
        const Table product = b * a;
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += product.x[i];
        return sum;
    }
    void set_gradients(const Array& g) {
        d_w.x = g;
        gradient = turn_of_b() ? (coordinates_b(a, a) * a).x : (b * coordinates_a()).x;
    }
    /// S B' G and G A' S.
    Table coordinates_a() const { return inverse(b.turned() * b, damping_a) * (b.turned() * d_w); }
    /// `seen`: the A of the gradient; partner: the A of S.
    Table coordinates_b(const Table& seen, const Table& partner) const {
        return d_w * seen.turned() * inverse(partner * partner.turned(), damping_b);
    }

    void move(double clip, double lr, double decay) {
        const bool b_moves = turn_of_b();
        const Table a_now = a, b_now = b;
        const double c1 = 1 - std::pow(beta1, step + 1), c2 = 1 - std::pow(beta2, step + 1);
        {
            const Table s = inverse(b.turned() * b, damping_a), map = s * b.turned() * b_old,
                        g = clip * coordinates_a();
            m_a = beta1 * (map * m_a) + (1 - beta1) * g;
            const Table r_p = second_moment_turned ? map.turned() : map;
            for (int j = 0; j < n; ++j) p_a[j] = mapped(p_a[j], r_p, column(g, j));
            if (!b_moves) {
                Table d(m, n);
                const Table first = b * m_a;
                for (int i = 0; i < m; ++i)
                    for (int j = 0; j < n; ++j) d(i, j) = direction(first(i, j), p_a[j], row(b, i), c1, c2);
                a = (1 - lr * decay) * a + -lr * (s * b.turned() * d);
            }
        }
        {
            const Table partner = updated_partner ? a : a_now, before = updated_partner ? a_now : a_old;
            const Table s = inverse(partner * partner.turned(), damping_b),
                        map = before * partner.turned() * s, g = clip * coordinates_b(a_now, partner);
            m_b = beta1 * (m_b * map) + (1 - beta1) * g;
            const Table r_p = second_moment_turned ? map : map.turned();
            for (int i = 0; i < m; ++i) p_b[i] = mapped(p_b[i], r_p, row(g, i));
            if (b_moves) {
                Table d(m, n);
                const Table first = m_b * partner;
                for (int i = 0; i < m; ++i)
                    for (int j = 0; j < n; ++j)
                        d(i, j) = direction(first(i, j), p_b[i], column(partner, j), c1, c2);
                b = (1 - lr * decay) * b + -lr * (d * partner.turned() * s);
            }
        }
        a_old = a_now, b_old = b_now;
        overlap = b_moves ? b_now.turned() * b : a_now * a.turned();
        ++step;
    }

    /// By the names of a checkpoint.
    std::map<std::string, Array> state(const std::string& linear) const {
        std::map<std::string, Array> all;
        const std::string name_a = linear + ".lora_A", name_b = linear + ".lora_B";
        all["/model/" + name_a] = a.x;
        all["/model/" + name_b] = b.x;
        all["/optimizer/" + name_a + "/m"] = m_a.x;
        all["/optimizer/" + name_b + "/m"] = m_b.x;
        Array &v_a = all["/optimizer/" + name_a + "/v"], &v_b = all["/optimizer/" + name_b + "/v"];
        for (int k = 0; k < r; ++k)
            for (int l = 0; l <= k; ++l)
                for (int j = 0; j < n; ++j) v_a.push_back(p_a[j](k, l));
        for (int i = 0; i < m; ++i)
            for (int k = 0; k < r; ++k)
                for (int l = 0; l <= k; ++l) v_b.push_back(p_b[i](k, l));
        all["/method/" + linear + "/overlap"] = overlap.x;
        all["/method/turn"] = {turn_of_b() ? 1.0 : 0.0};
        return all;
    }

  private:
    static Array column(const Table& t, int j) {
        Array all;
        for (int i = 0; i < t.rows; ++i) all.push_back(t(i, j));
        return all;
    }
    static Array row(const Table& t, int i) {
        return {t.x.begin() + i * t.cols, t.x.begin() + (i + 1) * t.cols};
    }
    /// b2 R P R' + (1 - b2) g g'
    Table mapped(const Table& p, const Table& map, const Array& g) const {
        Table next = beta2 * (map * p * map.turned());
        for (int k = 0; k < r; ++k)
            for (int l = 0; l < r; ++l) next(k, l) += (1 - beta2) * g[k] * g[l];
        return next;
    }
    double direction(double first, const Table& p, const Array& q, double c1, double c2) const {
        double second = 0;
        for (int k = 0; k < r; ++k)
            for (int l = 0; l < r; ++l) second += q[k] * p(k, l) * q[l];
        return first / c1 / (std::sqrt(std::max(second, 0.0) / c2) + eps);
    }
};

}  // namespace switchyard::reference
