//! Random graphs of stages under random edits: incremental equals rebuilt from scratch.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Keys of all tables are below this, so that reads hit, miss and collide often.
const KEYS: u8 = 6;
/// Tags of all rows are below this.
const TAGS: u8 = 4;
const INPUTS: usize = 2;
const STAGES: usize = 4;

type Stage = Derived<u8, u8, Tagged, String>;
type Rows<'t> = View<'t, u8, Tagged>;

/// One read of a stage from an earlier table.
#[derive(Clone, Debug)]
enum Read {
    /// The key at an offset from the own number; it may be missing.
    Get {
        from: usize,
        offset: u8,
    },
    /// A key, then the key that its row names: what is read depends on what was read.
    Chase {
        from: usize,
    },
    /// Rows with a tag at an offset from the own number.
    Tag {
        from: usize,
        offset: u8,
    },
    /// The same through the index whose hashes collide.
    WeakTag {
        from: usize,
        offset: u8,
    },
    Scan {
        from: usize,
    },
}

/// Under which keys a stage emits.
#[derive(Clone, Debug)]
enum Emit {
    Own,
    /// Several primaries meet at one key.
    Folded(u8),
    /// The own key, and one that moves with the result.
    Moving,
    /// Sometimes nothing, with the reads kept.
    Sometimes,
}

#[derive(Clone, Debug)]
struct Recipe {
    primary: usize,
    reads: Vec<Read>,
    /// Which of them are recorded as shared.
    shared: Vec<bool>,
    emit: Emit,
}

fn derive(
    recipe: &Recipe,
    views: &[Rows<'_>],
    key: u8,
    reads: &mut Reads,
) -> Output<u8, Tagged, String> {
    let Some(own) = views[recipe.primary].get(reads, &key) else {
        return Output::gone();
    };
    let mut sum = own.number;
    let mut notes = Vec::new();
    // Not commutative: an answer in another order gives another result.
    let mut mix = |key: u8, row: &Tagged| sum = sum.wrapping_mul(5).wrapping_add(key ^ row.number);
    for (read, is_shared) in recipe.reads.iter().zip(&recipe.shared) {
        let mut look = |reads: &mut Reads| match *read {
            Read::Get { from, offset } => {
                let at = (own.number.wrapping_add(offset)) % KEYS;
                match views[from].get(reads, &at) {
                    Some(row) => mix(at, row),
                    None => notes.push(format!("{key}: {at} is missing")),
                }
            }
            Read::Chase { from } => {
                let first = views[from]
                    .get(reads, &key)
                    .map_or(0, |row| row.number % KEYS);
                if let Some(row) = views[from].get(reads, &first) {
                    mix(first, row);
                }
            }
            Read::Tag { from, offset } => {
                let at = (own.number.wrapping_add(offset)) % TAGS;
                views[from]
                    .by::<ByTag>(reads, &at)
                    .for_each(|(key, row)| mix(*key, row));
            }
            Read::WeakTag { from, offset } => {
                let at = WeakTag((own.number.wrapping_add(offset)) % TAGS);
                views[from]
                    .by::<ByWeakTag>(reads, &at)
                    .for_each(|(key, row)| mix(*key, row));
            }
            Read::Scan { from } => views[from]
                .scan(reads)
                .for_each(|(key, row)| mix(*key, row)),
        };
        if *is_shared {
            reads.shared(look);
        } else {
            look(reads);
        }
    }
    // Few values, so that many changes end at the cut-off.
    let row = Tagged {
        number: sum % 8,
        tags: vec![sum % TAGS, own.number % TAGS],
    };
    let keys = match recipe.emit {
        Emit::Folded(modulus) => vec![key % modulus],
        Emit::Moving if sum % KEYS != key => vec![key, sum % KEYS],
        Emit::Sometimes if sum % 2 == 0 => vec![],
        Emit::Own | Emit::Moving | Emit::Sometimes => vec![key],
    };
    Output::new(
        keys.into_iter().map(|key| (key, row.clone())).collect(),
        notes,
    )
}

/// Two input tables and a stack of stages, each reading any tables before it.
struct Graph {
    recipes: Vec<Recipe>,
    inputs: Vec<Table<u8, Tagged>>,
    stages: Vec<Stage>,
    /// The stages as one who only follows their changes sees them.
    followed: Vec<BTreeMap<u8, Tagged>>,
}

/// Rows, notes, number of primaries, number of dependencies.
type Content = (Vec<(u8, Tagged)>, Vec<(u8, Vec<String>)>, usize, usize);

#[derive(Clone, Debug)]
enum Step {
    Edits(Vec<(usize, u8, Option<Tagged>)>),
    Resync(usize, Vec<(u8, Tagged)>),
}

impl Graph {
    fn new(recipes: &[Recipe]) -> Self {
        let stage = |_: &Recipe| {
            Derived::new("stage")
                .with_index::<ByTag>()
                .with_index::<ByWeakTag>()
        };
        Self {
            recipes: recipes.to_vec(),
            inputs: (0..INPUTS).map(|_| table()).collect(),
            stages: recipes.iter().map(stage).collect(),
            followed: vec![BTreeMap::new(); recipes.len()],
        }
    }

    fn step(&mut self, step: &Step) {
        let mut changes: Vec<Changes<u8, Tagged>> =
            self.inputs.iter().map(|_| Changes::default()).collect();
        match step {
            Step::Resync(input, rows) => {
                let rows = rows.iter().map(|(key, row)| (*key, Arc::new(row.clone())));
                changes[*input] = self.inputs[*input].resync(rows);
            }
            Step::Edits(edits) => {
                for (input, table) in self.inputs.iter_mut().enumerate() {
                    let own = edits.iter().filter(|edit| edit.0 == input);
                    changes[input] =
                        table.commit(own.map(|(_, key, row)| (*key, row.clone().map(Arc::new))));
                }
            }
        }
        for (place, recipe) in self.recipes.iter().enumerate() {
            let (earlier, later) = self.stages.split_at_mut(place);
            let views: Vec<Rows<'_>> = self
                .inputs
                .iter()
                .map(Table::view)
                .chain(earlier.iter().map(Derived::view))
                .collect();
            let mut dirty: Dirty<u8> = changes[recipe.primary].keys().copied().collect();
            for changes in &changes {
                later[0].touched(&mut dirty, changes);
            }
            let out = later[0].update(dirty, |key, reads| derive(recipe, &views, *key, reads));
            for change in out.rows() {
                let old = match &change.new {
                    Some(row) => self.followed[place].insert(change.key, Tagged::clone(row)),
                    None => self.followed[place].remove(&change.key),
                };
                assert_eq!(
                    old.as_ref(),
                    change.old.as_deref(),
                    "a change starts where it was"
                );
                assert_ne!(change.old, change.new, "a change changes");
            }
            changes.push(out);
        }
    }

    /// A graph that saw only the final inputs, in one step.
    fn rebuilt(&self) -> Self {
        let mut fresh = Self::new(&self.recipes);
        let edits = self.inputs.iter().enumerate().flat_map(|(input, table)| {
            rows(table)
                .into_iter()
                .map(move |(key, row)| (input, key, Some(row)))
        });
        fresh.step(&Step::Edits(edits.collect()));
        fresh
    }

    /// Everything there is to compare: rows, notes, and what is held in memory.
    fn content(&self) -> Vec<Content> {
        let content = |stage: &Stage| {
            let notes = stage
                .notes()
                .map(|(primary, notes)| (*primary, notes.to_vec()));
            let held = (stage.primary_count(), stage.dependency_count());
            (rows(stage.table()), notes.collect(), held.0, held.1)
        };
        self.stages.iter().map(content).collect()
    }
}

fn any_row() -> impl Strategy<Value = Tagged> {
    (0..8u8, vec(0..TAGS, 0..3)).prop_map(|(number, tags)| Tagged { number, tags })
}

fn any_recipe(stage: usize) -> impl Strategy<Value = Recipe> {
    let from = 0..INPUTS + stage;
    let read = prop_oneof![
        (from.clone(), 0..KEYS).prop_map(|(from, offset)| Read::Get { from, offset }),
        from.clone().prop_map(|from| Read::Chase { from }),
        (from.clone(), 0..TAGS).prop_map(|(from, offset)| Read::Tag { from, offset }),
        (from.clone(), 0..TAGS).prop_map(|(from, offset)| Read::WeakTag { from, offset }),
        from.clone().prop_map(|from| Read::Scan { from }),
    ];
    let emit = prop_oneof![
        Just(Emit::Own),
        (1..4u8).prop_map(Emit::Folded),
        Just(Emit::Moving),
        Just(Emit::Sometimes),
    ];
    // Every stage but the first has the one before it among its upstreams: STAGES levels deep.
    let chain = move |read: Vec<Read>| {
        let link = (stage > 0).then(|| Read::Tag {
            from: INPUTS + stage - 1,
            offset: 0,
        });
        link.into_iter().chain(read).collect()
    };
    let reads = vec(read, 0..3).prop_map(chain);
    (from, reads, vec(any::<bool>(), 4), emit).prop_map(|(primary, reads, shared, emit)| Recipe {
        primary,
        reads,
        shared,
        emit,
    })
}

fn any_recipes() -> impl Strategy<Value = Vec<Recipe>> {
    (0..STAGES).map(any_recipe).collect::<Vec<_>>()
}

fn any_step() -> impl Strategy<Value = Step> {
    let edit = (
        0..INPUTS,
        0..KEYS,
        proptest::option::weighted(0.7, any_row()),
    );
    prop_oneof![
        8 => vec(edit, 1..5).prop_map(Step::Edits),
        1 => (0..INPUTS, vec((0..KEYS, any_row()), 0..6)).prop_map(|(t, rows)| Step::Resync(t, rows)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_rebuilt_after_every_batch(
        recipes in any_recipes(),
        steps in vec(any_step(), 1..16),
    ) {
        let mut graph = Graph::new(&recipes);
        for step in &steps {
            graph.step(step);
            prop_assert_eq!(graph.content(), graph.rebuilt().content());
            for (followed, stage) in graph.followed.iter().zip(&graph.stages) {
                prop_assert_eq!(followed.clone().into_iter().collect::<Vec<_>>(), rows(stage.table()));
            }
        }
    }

    #[test]
    fn batching_does_not_show(
        recipes in any_recipes(),
        edits in vec((0..INPUTS, 0..KEYS, proptest::option::weighted(0.7, any_row())), 1..30),
        size in 1..8usize,
    ) {
        let (mut single, mut batched) = (Graph::new(&recipes), Graph::new(&recipes));
        for edit in &edits {
            single.step(&Step::Edits(vec![edit.clone()]));
        }
        for batch in edits.chunks(size) {
            batched.step(&Step::Edits(batch.to_vec()));
        }
        prop_assert_eq!(single.content(), batched.content());
    }
}
