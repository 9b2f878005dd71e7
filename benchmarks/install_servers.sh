# Servers of this protocol by other makers, where node or cargo are at hand: the versions that are compared.
cd "$(dirname "$0")" || exit 1
npm ci --no-audit --no-fund --ignore-scripts
cargo install durable-streams --version 0.1.5 --locked --root ../build/rust
