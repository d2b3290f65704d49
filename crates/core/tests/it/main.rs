//! The core from outside: attacks on tokens, and vectors that others published.

mod forge;
mod jwt_claims;
mod jwt_corpus;
mod refresh;
mod sdk_vectors;
mod session;
mod vectors;
