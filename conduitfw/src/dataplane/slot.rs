//! The rows of one slot: written while no frame reads them, read back, and removed.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use conduitfw_common::table::{
    Conduit, FUNCTIONS, Interface, InterfaceKey, MAX_CONDUITS, MAX_INTERVALS, MAX_LIMITS,
    MAX_OPERATION_ROWS, MAX_PAGES, MAX_RULE_SETS, MAX_SERVICES, MAX_VALUE_RANGES, NetworkKey,
    PairKey,
};

use super::{
    DataPlaneError,
    maps::{Maps, NetworkRow, Plain, Table},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::policy::CompiledTables;

/// Writes every row of a slot that no frame reads.
pub(super) fn write_slot(
    maps: &mut Maps,
    slot: u32,
    tables: &CompiledTables,
    indexes: &BTreeMap<String, u32>,
) -> Result<(), DataPlaneError> {
    clear_slot(maps, slot)?;
    let write = |what| move |source| DataPlaneError::Write { what, source };

    for (name, vlans, row) in &tables.interfaces {
        let Some(ifindex) = indexes.get(name).copied() else {
            continue;
        };
        let key = InterfaceKey {
            slot,
            ifindex,
            vlans: *vlans,
        };
        maps.interfaces
            .insert(Plain(key), Plain(*row), 0)
            .map_err(write("interfaces"))?;
    }
    for (prefix, address, row) in &tables.networks {
        let key = NetworkRow::new(
            *prefix,
            Plain(NetworkKey {
                slot,
                address: *address,
            }),
        );
        maps.networks
            .insert(&key, Plain(*row), 0)
            .map_err(write("networks"))?;
    }
    for (key, row) in &tables.pairs {
        let key = PairKey {
            slot: slot_of_pair(slot),
            ..*key
        };
        maps.pairs
            .insert(Plain(key), Plain(*row), 0)
            .map_err(write("pairs"))?;
    }
    write_run(&mut maps.services, slot, MAX_SERVICES, &tables.services)
        .map_err(write("services"))?;
    let mut conduits = vec![Conduit::default(); MAX_CONDUITS as usize];
    for (id, conduit) in &tables.conduits {
        if let Some(row) = conduits.get_mut(usize::from(*id)) {
            *row = *conduit;
        }
    }
    write_run(&mut maps.conduits, slot, MAX_CONDUITS, &conduits).map_err(write("conduits"))?;
    write_run(&mut maps.rule_sets, slot, MAX_RULE_SETS, &tables.rule_sets)
        .map_err(write("rule sets"))?;
    write_run(
        &mut maps.operations,
        slot,
        MAX_OPERATION_ROWS * FUNCTIONS,
        tables.operations.as_flattened(),
    )
    .map_err(write("operations"))?;
    write_run(&mut maps.intervals, slot, MAX_INTERVALS, &tables.intervals)
        .map_err(write("intervals"))?;
    write_run(&mut maps.pages, slot, MAX_PAGES, &tables.pages).map_err(write("pages"))?;
    write_run(&mut maps.limits, slot, MAX_LIMITS, &tables.limits).map_err(write("limits"))?;
    write_run(
        &mut maps.value_ranges,
        slot,
        MAX_VALUE_RANGES,
        &tables.value_ranges,
    )
    .map_err(write("value ranges"))?;
    maps.generations
        .set(slot, Plain(tables.generation), 0)
        .map_err(write("the generation"))
}

fn slot_of_pair(slot: u32) -> u16 {
    u16::from(slot != 0)
}

/// Rows beyond those of a slot are not written: what does not fit was refused before.
fn write_run<V: FromBytes + IntoBytes + Immutable + Copy + 'static>(
    table: &mut Table<V>,
    slot: u32,
    rows_of_a_slot: u32,
    rows: &[V],
) -> Result<(), MapError> {
    let fitting = rows.get(..rows_of_a_slot as usize).unwrap_or(rows);
    table.set_run(slot * rows_of_a_slot, fitting)
}

/// Removes the rows of the policy before the last one.
fn clear_slot(maps: &mut Maps, slot: u32) -> Result<(), DataPlaneError> {
    let write = |what| move |source| DataPlaneError::Write { what, source };
    for key in rows_of_interfaces(maps, slot)? {
        maps.interfaces.remove(&key).map_err(write("interfaces"))?;
    }
    for key in rows_of_networks(maps, slot)? {
        maps.networks.remove(&key).map_err(write("networks"))?;
    }
    for key in rows_of_pairs(maps, slot)? {
        maps.pairs.remove(&key).map_err(write("pairs"))?;
    }
    Ok(())
}

fn rows_of_interfaces(maps: &Maps, slot: u32) -> Result<Vec<Plain<InterfaceKey>>, MapError> {
    keys(&maps.interfaces, |key| key.0.slot == slot)
}

fn rows_of_pairs(maps: &Maps, slot: u32) -> Result<Vec<Plain<PairKey>>, MapError> {
    keys(&maps.pairs, |key| key.0.slot == slot_of_pair(slot))
}

fn rows_of_networks(maps: &Maps, slot: u32) -> Result<Vec<NetworkRow>, MapError> {
    let mut rows = maps.networks.keys().collect::<Result<Vec<_>, _>>()?;
    rows.retain(|row| row.data().0.slot == slot);
    Ok(rows)
}

fn keys<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    is_wanted: impl Fn(&K) -> bool,
) -> Result<Vec<K>, MapError> {
    let mut rows = map.keys().collect::<Result<Vec<_>, _>>()?;
    rows.retain(is_wanted);
    Ok(rows)
}

/// Reads back how much of each table stands in a slot, before anything depends on it.
pub(super) fn verify_slot(
    maps: &Maps,
    slot: u32,
    tables: &CompiledTables,
    indexes: &BTreeMap<String, u32>,
) -> Result<(), DataPlaneError> {
    let is_there = |row: &&(String, u32, Interface)| indexes.contains_key(&row.0);
    let check = |what, found: usize, wanted: usize| {
        if found == wanted {
            Ok(())
        } else {
            Err(DataPlaneError::NotAsWritten {
                what,
                found,
                wanted,
            })
        }
    };
    check(
        "interfaces",
        rows_of_interfaces(maps, slot)?.len(),
        tables.interfaces.iter().filter(is_there).count(),
    )?;
    check(
        "networks",
        rows_of_networks(maps, slot)?.len(),
        tables.networks.len(),
    )?;
    check(
        "pairs",
        rows_of_pairs(maps, slot)?.len(),
        tables.pairs.len(),
    )?;
    let conduits = maps.conduits.run(slot * MAX_CONDUITS, MAX_CONDUITS)?;
    let present = conduits.iter().filter(|row| row.present != 0).count();
    check("conduits", present, tables.conduits.len())?;
    let generation = maps.generations.get(&slot, 0)?.0;
    check(
        "the generation",
        usize::from(generation == tables.generation),
        1,
    )
}
