//! What is stored: tables and their columns, ids, chunks, and where in the heap a batch is.

pub mod block_hint;
pub mod chunk_list;
pub mod events;
pub mod id;
pub mod table;
pub mod write_chunks;
