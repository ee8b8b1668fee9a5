//! What one run of a derive function yields.

/// Rows and notes of one primary, or word that the primary is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<K, V, N> {
    /// The rows; each key once (the first wins, debug builds assert).
    pub rows: Vec<(K, V)>,
    /// What there is to say beside the rows.
    pub notes: Vec<N>,
    gone: bool,
}

impl<K, V, N> Output<K, V, N> {
    /// Rows and notes.
    pub fn new(rows: Vec<(K, V)>, notes: Vec<N>) -> Self {
        Self {
            rows,
            notes,
            gone: false,
        }
    }

    /// No row and no note *for now*. The reads are kept: the primary runs again when what it read
    /// changes.
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new())
    }

    /// One row.
    pub fn one(key: K, row: V) -> Self {
        Self::new(vec![(key, row)], Vec::new())
    }

    /// The primary itself is absent: its rows, notes *and reads* are dropped, so a name that came
    /// and went costs no memory.
    ///
    /// It runs again only when the caller puts it into [`crate::Dirty`], as it does for each
    /// changed key of the primary table. Return it only for an absent primary row.
    pub fn gone() -> Self {
        Self {
            rows: Vec::new(),
            notes: Vec::new(),
            gone: true,
        }
    }

    /// Adds a row.
    pub fn with_row(mut self, key: K, row: V) -> Self {
        self.rows.push((key, row));
        self
    }

    /// Adds a note.
    pub fn with_note(mut self, note: N) -> Self {
        self.notes.push(note);
        self
    }

    /// Adds notes.
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = N>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// Rows, notes, gone. Nothing survives a primary that is gone, whatever was added after.
    pub(super) fn into_parts(self) -> (Vec<(K, V)>, Vec<N>, bool) {
        if self.gone {
            (Vec::new(), Vec::new(), true)
        } else {
            (self.rows, self.notes, false)
        }
    }
}

impl<K, V, N> From<Vec<(K, V)>> for Output<K, V, N> {
    fn from(rows: Vec<(K, V)>) -> Self {
        Self::new(rows, Vec::new())
    }
}
