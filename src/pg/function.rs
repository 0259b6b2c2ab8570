//! The C calling convention, for functions that pgrx's own wrappers would slow down or cannot describe.

use pgrx::pg_sys;

/// Defines a function that PostgreSQL can call by name: `fn(fcinfo) -> Datum`, guarded against panics.
/// The optional block before the body may answer without the cost of the guard. It must not panic or call anything that may
/// raise an error.
macro_rules! pg_function {
    ($(#[$meta:meta])* fn $name:ident($fcinfo:ident) -> Datum $(unless $quick:block)? $body:block) => {
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            $(if let Some(answer) = $quick {
                return answer;
            })?
            let body = || $body;
            // SAFETY: turns a panic into an error of PostgreSQL, as at every such boundary.
            unsafe { pgrx::pg_sys::panic::pgrx_extern_c_guard(body) }
        }

        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
                const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
        };
    };
}
pub(crate) use pg_function;

/// Text argument `index`, `None` for NULL.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function whose argument `index` is text or json.
pub unsafe fn text_argument<'a>(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<&'a str> {
    // SAFETY: the caller's promise; the value lives as long as the call.
    unsafe { pgrx::fcinfo::pg_getarg(fcinfo, index) }
}

/// The composite result of a function with OUT parameters.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function declared to return as many columns of these types.
pub unsafe fn composite_result(
    fcinfo: pg_sys::FunctionCallInfo,
    values: &mut [pg_sys::Datum],
) -> pg_sys::Datum {
    let mut nulls = vec![false; values.len()];
    // SAFETY: the caller's promise; the descriptor is only used here.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// Begins the result of a function that returns a set of rows: where they go, and what columns they have.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function that returns a set of rows, outside of any SPI connection.
pub unsafe fn materialize(
    fcinfo: pg_sys::FunctionCallInfo,
) -> (*mut pg_sys::Tuplestorestate, pg_sys::TupleDesc) {
    // SAFETY: the caller's promise; the result lives as long as the query.
    unsafe {
        pg_sys::InitMaterializedSRF(fcinfo, 0);
        let result = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        ((*result).setResult, (*result).setDesc)
    }
}

/// Argument `index` of a type that is its own datum; `None` for NULL.
///
/// # Safety
/// `fcinfo` must come from PostgreSQL, for a function whose argument `index` is of this type.
pub unsafe fn argument<T: pgrx::FromDatum>(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> Option<T> {
    // SAFETY: the caller's promise.
    unsafe { pgrx::fcinfo::pg_getarg(fcinfo, index) }
}
