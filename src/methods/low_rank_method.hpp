// LowRankMethod: the common part of all methods with a low-rank pair beside each frozen linear. On its own it
// is plain LoRA. The slots of a pair are owned one by one and spread over the ranks (HomeRule); factors that
// lie by long rows are owned in blocks of these.
#pragma once

#include <array>
#include <map>

#include "config/option_table.hpp"
#include "methods/method.hpp"
#include "methods/parts/low_rank_adapter.hpp"

namespace switchyard {

class LowRankMethod : public Method {
  public:
    /// Pairs come from attach_group(), so there is nothing to override here.
    std::unique_ptr<Adapter> attach(const ModelContext&, Linear&) final { return nullptr; }
    GroupAdapters attach_group(const ModelContext&, LinearGroup&) override;
    OwnershipPlan ownership(const ModelContext&, const Parameter&) override;
    void initialise(const ModelContext& context) override { initialise_plain(context); }
    /// Under Strategy::weight_gradient the gradients of whole weights are zeroed, and those of A and B come
    /// from them when the sum over micro-batches is complete. A method that overrides these calls them.
    void begin_step(std::int64_t step) override;
    void reduce_gradients(Optimizer&) override;
    /// Writes the scale of the product beside the factors, for readers of weights alone.
    void visit_state(StateIo&, Optimizer&) override;

  protected:
    /// One linear with its adapter; they are in the order of the forward pass.
    struct Adapted {
        Linear* linear = nullptr;
        LowRankAdapter* adapter = nullptr;
        /// The numbers of the A side and the B side among all sides with the same owner group and width. They
        /// stagger the homes of the sides (HomeRule).
        std::array<int, 2> side_number{};
    };
    /// A method may return an adapter with more parameters, or with another map, for every linear of a
    /// group. By default pairs are plain, and the linears of a group share products.
    virtual std::unique_ptr<LowRankAdapter> make_adapter(const ModelContext&, const Linear&) {
        return nullptr;
    }
    /// Called when adapted_.back() has been added.
    virtual void adapted(const ModelContext&) {}
    virtual std::int64_t low_rank(const ModelContext&) const;
    virtual double scale(const ModelContext&) const;
    /// Position of a factor in adapted_: {matrix, side (0: A, 1: B)}; {-1, 0} for other parameters.
    std::pair<int, int> find_factor(const Parameter&) const;
    /// A ~ U(+-1/sqrt(n)), B = 0.
    void initialise_plain(const ModelContext&);
    /// As method.init says (init_option()).
    void initialise_as_asked(const ModelContext&);
    /// The rule that places the vectors of a side.
    static HomeRule home_rule(const ModelContext&, int side_number, const Comm& group, std::int64_t low_rank);

    std::vector<Adapted> adapted_;

  private:
    void add(const ModelContext&, Linear&, LowRankAdapter&);
    /// Uniform in (-bound, bound), from the factor's own stream.
    static void draw(const ModelContext&, const Adapted&, Parameter& factor, double bound);

    std::map<std::pair<const Comm*, std::int64_t>, int> num_sides_;  // by owner group and width
};

/// The keys of every low-rank method, and the resolve (of the rank) and check of its entry: a pair must fit
/// every adapted matrix (hidden x hidden, hidden x width of the key-value heads, hidden x feed-forward).
MethodOption rank_option();
MethodOption alpha_option(const std::string& default_value);
MethodOption strategy_option();
MethodOption init_option();
void resolve_low_rank(Config&);
void resolve_low_rank(Config&, std::int64_t most);
void check_low_rank(const Config&);

/// Fills one row of a factor in slots (r, local width), uniform in (-bound, bound), from the factor's global
/// stream, whose rows are numbered by `global_row`.
void fill_factor_row(const Parameter&, Tensor row, std::int64_t global_row, std::uint64_t key, double bound);

/// Bounds of the SwitchLoRA initialisation (arXiv 2406.06564, eq. 3): std[A] and std[B] times sqrt(3).
struct FactorBounds {
    double a = 0, b = 0;
};
FactorBounds switchlora_bounds(std::int64_t m, std::int64_t n, std::int64_t low_rank);

}  // namespace switchyard
