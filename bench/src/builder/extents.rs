//! Policies of all sizes: what they cost a frame of a flow, and a new flow.

use anyhow::Result;
use conduitfw_tests::frames::SYN;

use super::{Bed, Builder, Plan};
use crate::pacer::Script;
use crate::policy::{Extent, Policy};
use crate::rig::USUAL_SIZES;
use crate::talk::Talk;

impl Builder<'_> {
    pub(super) fn extents(&mut self) -> Result<()> {
        let usual = Extent::USUAL;
        for rules in [10, 1000, 10_000] {
            let bed = self.bed(Policy::of(Extent { rules, ..usual }), USUAL_SIZES);
            let name = format!("{rules} rules: FC3");
            self.read(&bed, Talk::v4(10, 1024, 502), &name, 1)?;
            self.new_flow(&bed, &format!("{rules} rules: new flow"))?;
        }
        for conduits in [1, 64, 512] {
            let bed = self.bed(Policy::of(Extent { conduits, ..usual }), USUAL_SIZES);
            self.new_flow(&bed, &format!("{conduits} conduits: new flow"))?;
        }
        for zones in [2, 4, 63] {
            let bed = self.bed(Policy::of(Extent { zones, ..usual }), USUAL_SIZES);
            self.new_flow(&bed, &format!("{zones} zones: new flow"))?;
        }
        Ok(())
    }

    /// SYN after SYN, each of a flow that was never seen.
    fn new_flow(&mut self, bed: &Bed, name: &str) -> Result<()> {
        let syn = Talk::v4(10, 4096, 502).request(SYN, &[])?;
        let script = Script::of(vec![syn.staying()]).across(1 << 20);
        let plan = [Some(name)];
        let plan = Plan::passes(&plan).across(65_536);
        self.case(bed, &Script::nothing(), &script, &plan)
    }
}
