//! Real payments between embedded nodes.

mod contract {
    use super::world::open;

    crate::wallet_contract!(open);
}
mod holds;
mod life;
mod world;
