"""x"""
from tests.contract.population import populate
async def test_x(stack):
    p = await populate(stack)
    print(p.ours.ids)
