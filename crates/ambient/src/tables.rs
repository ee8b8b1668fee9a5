//! Names for the tables that stages read.

use std::sync::Arc;

use flow::{Reads, Table, View};
use model::{Finding, MeshRow, ObjectKey, Parsed, Severity, Str};

/// The table of an input kind. Cluster-scoped objects have an empty namespace in their key.
pub type InputTable<T> = Table<ObjectKey, Parsed<T>>;
/// The tracked view of an input table.
pub type InputView<'t, T> = View<'t, ObjectKey, Parsed<T>>;
/// The tracked view of the mesh row.
pub type MeshTable<'t> = View<'t, (), MeshRow>;

/// The mesh row, or the defaults before there is one.
pub(crate) fn mesh(view: MeshTable<'_>, reads: &mut Reads) -> Arc<MeshRow> {
    view.get(reads, &()).cloned().unwrap_or_default()
}

/// A finding of severity error.
pub(crate) fn error(
    code: &'static str,
    object: model::ObjectRef,
    message: impl Into<Str>,
    fix: impl Into<Str>,
) -> Finding {
    Finding::new(code, Severity::Error, object, message, fix)
}

/// A finding of severity warning.
pub(crate) fn warning(
    code: &'static str,
    object: model::ObjectRef,
    message: impl Into<Str>,
    fix: impl Into<Str>,
) -> Finding {
    Finding::new(code, Severity::Warning, object, message, fix)
}
