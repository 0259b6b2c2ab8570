//! What is stored: tables and their columns, ids, chunks, and where in the heap a batch is.

pub mod block_hint;
pub mod events;
pub mod id;
pub mod read_chunk_cache;
pub mod table;
pub mod write_chunk_cache;
